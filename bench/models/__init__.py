"""Reference architectures of the methods that NDP-Net's paper compares with (its Fig. 11), and of later ones.

`find_architecture` imports one page; the names are known without PyTorch.
"""

from importlib import import_module

from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.errors import InputError

__all__ = ["LATER", "PAPER", "Architecture", "Reported", "find_architecture"]

# Fig. 11 of the NDP-Net paper, in its order.
PAPER = (
    "ae-ssim",
    "f-anogan",
    "anogan",
    "ganomaly",
    "vae",
    "trustmae",
    "riad",
    "mkd",
    "spade",
    "dfr",
    "gcpf",
    "patch-svdd",
    "mb-pfm",
    "padim",
    "stpm",
)
LATER = ("patchcore", "efficientad-s")


def find_architecture(name: str) -> Architecture:
    """Return the page of a name of PAPER or LATER; needs PyTorch.

    Raises:
        InputError: there is none of that name.
        ImportError: PyTorch is not installed.
    """
    if name not in (*PAPER, *LATER):
        raise InputError(f"there is no architecture '{name}'; {', '.join((*PAPER, *LATER))} are there.")
    page = import_module(f"ndp_rt.bench.models.{name.replace('-', '_')}")
    found: Architecture = page.ARCHITECTURE
    return found
