"""Maps the top-level folders into the one import namespace `ndp_rt` (pyproject.toml holds everything else)."""

from setuptools import find_packages, setup

MAPPED = {"ndp_rt.kernels": "kernels", "ndp_rt.export": "export", "ndp_rt.bench": "bench"}


def list_packages() -> list[str]:
    """Return every package of the wheel: ndp_rt's own, and the mapped folders with what lies below them."""
    own = [name for name in find_packages(include=["ndp_rt", "ndp_rt.*"]) if not name.startswith(tuple(MAPPED))]
    for package, folder in MAPPED.items():
        own += [package, *(f"{package}.{name}" for name in find_packages(folder))]
    return sorted(own)


setup(packages=list_packages(), package_dir={"ndp_rt": "ndp_rt", **MAPPED})
