"""Maps the top-level folders into the one import namespace `ndp_rt`, and compiles the C library into the build.

pyproject.toml holds everything else.
"""

import sys
import sysconfig
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).parent
MAPPED = {
    "ndp_rt.kernels": "kernels",
    "ndp_rt.export": "export",
    "ndp_rt.bench": "bench",
    "ndp_rt.capi.examples": "examples",  # no Python, but files to read and copy
}

sys.path.insert(0, str(ROOT))  # pip and build start elsewhere
try:
    from ndp_rt.capi.build import BRIDGE_MODULE, BRIDGE_NAME, LIBRARY_NAME, SONAME, build_library
    from ndp_rt.errors import MissingExtraError, NdpRtError
finally:
    sys.path.remove(str(ROOT))


def list_packages() -> list[str]:
    """Return every package of the wheel: ndp_rt's own, and the mapped folders with what lies below them."""
    own = [name for name in find_packages(include=["ndp_rt", "ndp_rt.*"]) if not name.startswith(tuple(MAPPED))]
    for package, folder in MAPPED.items():
        own += [package, *(f"{package}.{name}" for name in find_packages(folder))]
    return sorted(own)


class BuildWithLibrary(build):
    """The usual build, and the C library."""

    sub_commands: ClassVar[Any] = [*build.sub_commands, ("build_capi", None)]


class BuildLibrary(Command):
    """Compile the C library where this machine can; otherwise say what is missing and go on without."""

    description = "compile the C library, libndp_rt.so"
    user_options: ClassVar[Any] = []
    editable_mode = False  # setuptools sets it

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    @property
    def folder(self) -> Path:
        return Path(ROOT if self.editable_mode else self.build_lib or "", "ndp_rt", "capi")

    def run(self) -> None:
        if not self.editable_mode:  # an earlier build, for another Python perhaps, left its own
            for old in [*self.folder.glob(f"{BRIDGE_MODULE}*.so"), *self.folder.glob(f"{LIBRARY_NAME}*")]:
                old.unlink()
        home = self.folder if self.editable_mode else Path(sysconfig.get_path("platlib"), "ndp_rt", "capi")
        try:
            build_library(self.folder, home=home)
        except MissingExtraError as error:
            self.warn(f"the C library is not built: {str(error).rstrip('.')}. Later, 'ndp-rt capi build' builds it.")
        except NdpRtError as error:
            self.warn(f"the C library is not built; 'ndp-rt capi build' tries again. {error}")

    def get_source_files(self) -> list[str]:
        return []  # they are package data

    def get_outputs(self) -> list[str]:
        names = (name for name in (BRIDGE_NAME, LIBRARY_NAME, SONAME) if (self.folder / name).is_file())
        return [str(Path(self.build_lib or "", "ndp_rt", "capi", name)) for name in names]

    def get_output_mapping(self) -> dict[str, str]:
        return {one: f"ndp_rt/capi/{Path(one).name}" for one in self.get_outputs()} if self.editable_mode else {}


class Wheel(bdist_wheel):
    """A wheel for this platform and Python where the C library is in it, else one for all."""

    def run(self) -> None:
        if not self.skip_build:
            self.run_command("build_capi")
        if self.get_finalized_command("build_capi").get_outputs():
            self.root_is_pure = False
            self.distribution.has_ext_modules = lambda: True  # installing goes by it
        super().run()


setup(
    packages=list_packages(),
    package_dir={"ndp_rt": "ndp_rt", **MAPPED},
    cmdclass={"build": BuildWithLibrary, "build_capi": BuildLibrary, "bdist_wheel": Wheel},
)
