"""Opens a bundle in each worker: the same bundle, the same images and the same engine everywhere."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.archive.crew import Ready
from ndp_rt.bundle.open import open_bundle
from ndp_rt.errors import BundleError, HostError
from ndp_rt.images.page_names import split_page
from ndp_rt.inspector import Inspector

PROBE_COUNT = 16  # more than one: images may be moved away during a run
DEADLY = "expected to be inspected, but the process ended, several times. Is it very large? Try it on its own."


def choose_probes(paths: Sequence[Path]) -> list[Path]:
    """Return some of the images' files that are there, for machines that do not see them to be known by."""
    some = (Path(split_page(path)[0]) for path in paths[:: max(1, len(paths) // PROBE_COUNT)])
    return [path for path in some if os.path.exists(path)]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How workers open a bundle, which has to be the same one everywhere.

    Attributes:
        arguments: of `Inspector.open`; the bundle's path is absolute.
        fingerprint: of the bundle where the run began.
        probes: files of which one has to be there; none: nothing is looked for.
    """

    arguments: Mapping[str, Any]
    fingerprint: str
    probes: Sequence[Path]

    def open(self) -> Inspector:
        """Open an inspector on this machine.

        Raises:
            HostError: the machine lacks the bundle, has another one of that name, or does not see the images.
            NdpRtError: as `Inspector.open`.
        """
        machine, path = platform.node(), self.arguments["bundle"]
        try:
            found = open_bundle(path).fingerprint
        except BundleError as error:
            raise HostError(f"{machine}: expected the bundle {path} there too, got none: {error}") from error
        if found != self.fingerprint:
            raise HostError(
                f"{machine}: expected the bundle {path} to be {self.fingerprint[:12]}, as where the run began, got "
                f"{found[:12]}. Copy the same bundle to every machine."
            )
        if self.probes and not any(os.path.exists(path) for path in self.probes):
            raise HostError(
                f"{machine}: expected to find the images, got none at {self.probes[0]}. Mount their folder there under "
                "the same path."
            )
        return Inspector.open(**self.arguments)


class OneEngine:
    """The engine of all workers of a run: that of the first one."""

    hash = ""

    def accept(self, ready: Ready) -> None:
        """Take a worker that is ready.

        Raises:
            HostError: it has another engine.
        """
        self.hash = self.hash or ready.engine_hash
        if ready.engine_hash != self.hash:
            raise HostError(
                f"{ready.machine}: expected the engine {self.hash[:12]}, which the first worker has, got "
                f"{ready.engine_hash[:12]}: the processor, or a package, is another. Use machines that are alike."
            )
