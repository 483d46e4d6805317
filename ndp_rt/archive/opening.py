"""Opens a bundle in each worker: the same bundle, the same images and the same engine everywhere."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.archive.crew import Ready
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.errors import BundleError, HostError
from ndp_rt.images.page_names import split_page
from ndp_rt.inspector import Inspector

PROBE_COUNT = 16  # more than one: images may be moved away during a run
DEADLY = "expected to be inspected, but the process ended, several times. Is it very large? Try it on its own."


def choose_probes(paths: Sequence[Path]) -> list[Path]:
    """Return some of the images' files that are there, for machines that do not see them to be known by."""
    some = (Path(split_page(path)[0]) for path in paths[:: max(1, len(paths) // PROBE_COUNT)])
    return [path for path in some if os.path.exists(path)]


def find_thresholds(bundle: Bundle, arguments: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return the thresholds of score and map that `Inspector.open` decides by; no fingerprint tells them."""
    spec, given = bundle.threshold(arguments.get("precision", "fp32")), arguments.get("threshold")
    return spec.value if given is None else given, spec.map_value


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How workers open a bundle, which has to be the same one everywhere.

    Attributes:
        arguments: of `Inspector.open`; the bundle's path is absolute.
        fingerprint: of the bundle where the run began.
        thresholds: see `find_thresholds`, where the run began.
        probes: files of which one has to be there; none: nothing is looked for.
    """

    arguments: Mapping[str, Any]
    fingerprint: str
    thresholds: tuple[float | None, float | None]
    probes: Sequence[Path]

    @classmethod
    def begin(cls, bundle: Bundle, arguments: Mapping[str, Any], probes: Sequence[Path]) -> "Opening":
        """Return how workers open what is open where the run begins."""
        thresholds = find_thresholds(bundle, arguments)
        return cls(arguments=arguments, fingerprint=bundle.fingerprint, thresholds=thresholds, probes=probes)

    def open(self) -> Inspector:
        """Open an inspector on this machine.

        Raises:
            HostError: the machine lacks the bundle, has another one of that name, or does not see the images.
            NdpRtError: as `Inspector.open`.
        """
        machine, path = platform.node(), self.arguments["bundle"]
        try:
            bundle = open_bundle(path)
        except BundleError as error:
            raise HostError(f"{machine}: expected the bundle {path} there too, got none: {error}") from error
        if bundle.fingerprint != self.fingerprint:
            raise HostError(
                f"{machine}: expected the bundle {path} to be {self.fingerprint[:12]}, as where the run began, got "
                f"{bundle.fingerprint[:12]}. Copy the same bundle to every machine."
            )
        if (thresholds := find_thresholds(bundle, self.arguments)) != self.thresholds:
            raise HostError(
                f"{machine}: expected the thresholds of {path} (score, map) to be {self.thresholds}, as where the run "
                f"began, got {thresholds}. Copy the same bundle to every machine, and change none meanwhile."
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
