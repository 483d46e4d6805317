"""Reference architectures of the methods that NDP-Net's paper compares with (its Fig. 11), and of later ones.

docs/bench-methods.md says of each what it counts at inspection and leaves out, and where every figure is from. Its
module is imported when it is asked for, so the names are known without PyTorch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ndp_rt.errors import InputError

PAGES: Mapping[str, Mapping[str, Any]] = json.loads((Path(__file__).parent / "pages.json").read_text("utf-8"))
LATER = ("patchcore", "efficientad-s")
PAPER = tuple(name for name in PAGES if name not in LATER)  # in Fig. 11's order


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A method's page; `reported` has percents on MVTec AD's five textures, of the paper's tables II to IV."""

    name: str  # as in --against, lower case with hyphens
    title: str  # as its paper writes it
    is_graph: bool = True  # False where it cannot be exported as one graph: it iterates on gradients
    reported: Mapping[str, float] = field(default_factory=dict)  # image_rocauc, pixel_rocauc, aupro

    def build(self) -> Any:
        """Return its `Method`, weights drawn with seed 0, in eval mode; needs PyTorch."""
        from ndp_rt.bench.models.method import Method, build_seeded

        page = import_module(f"ndp_rt.bench.models.{self.name.replace('-', '_')}")
        (kind,) = (one for one in vars(page).values() if isinstance(one, type) and one.__base__ is Method)
        return build_seeded(kind)


def find_architecture(name: str) -> Architecture:
    """Return the page of a name of PAPER or LATER.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PAGES:
        raise InputError(f"there is no architecture '{name}'. Choose one of {', '.join(PAGES)}.")
    return Architecture(name=name, **PAGES[name])
