"""The backends by name: those in `ndp_rt/engines/backends/`, and those that other packages bring.

A module or package in that folder has an object BACKEND. Another package names one of its own in an entry point of the
group "ndp_rt.backends": `name = "module:OBJECT"`, where `name` is the backend's. Importing this imports none of the
libraries behind them.
"""

import pkgutil
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from ndp_rt.engines import backends
from ndp_rt.engines.backend import Backend, DeviceBackend, HostBackend
from ndp_rt.errors import InputError, MissingExtraError

ENTRY_POINTS = "ndp_rt.backends"


@lru_cache(maxsize=1)
def find_built_in() -> dict[str, Backend]:
    """Return the backends in our own folder by name."""
    modules = [import_module(f"{backends.__name__}.{found.name}") for found in pkgutil.iter_modules(backends.__path__)]
    return {module.BACKEND.name: module.BACKEND for module in modules}


def load_entry_point(entry: EntryPoint) -> Backend:
    """Return the backend that another package brings.

    Raises:
        InputError: it cannot be imported, or is no backend of that name.
    """
    try:
        backend = entry.load()
    except Exception as error:  # whatever a stranger's module raises
        raise InputError(
            f"backend '{entry.name}' ({entry.value}) cannot be imported: {error}. Mend or remove its package."
        ) from error
    if not isinstance(backend, HostBackend | DeviceBackend) or backend.name != entry.name:
        raise InputError(
            f"expected {entry.value} to be a HostBackend or DeviceBackend called '{entry.name}', got "
            f"{type(backend).__name__} '{getattr(backend, 'name', '')}'. Mend or remove its package."
        )
    return backend


def list_backends(kind: str | None = None) -> dict[str, Backend]:
    """Return all backends by name, those of a device first that are preferred there.

    Args:
        kind: a kind of device, such as "cpu" or "cuda"; None: every one.

    Raises:
        InputError: one that another package brings cannot be loaded.
    """
    brought = {entry.name: load_entry_point(entry) for entry in entry_points(group=ENTRY_POINTS)}
    found = sorted((brought | find_built_in()).values(), key=lambda one: (one.devices != ("cpu",), one.order, one.name))
    return {one.name: one for one in found if kind is None or kind in find_kinds(one)}


def find_backend(name: str) -> Backend:
    """Return the backend `name`.

    Raises:
        InputError: there is none of that name, or it cannot be loaded.
    """
    if name in find_built_in():
        return find_built_in()[name]
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return load_entry_point(entry)
    raise InputError(f"expected a backend of {', '.join(list_backends())}, got '{name}'.")


def find_host_backend(name: str) -> HostBackend:
    """Return the backend `name`, whose engines run on the host.

    Raises:
        InputError: there is none of that name, or it runs on a GPU.
    """
    backend = find_backend(name)
    if not isinstance(backend, HostBackend):
        raise InputError(f"expected a backend for the CPU, {_join('cpu')}, got '{name}', which is for a GPU.")
    return backend


def find_device_backend(name: str) -> DeviceBackend:
    """Return the backend `name`, whose engines run on a GPU.

    Raises:
        InputError: there is none of that name, or it runs on the host.
    """
    backend = find_backend(name)
    if not isinstance(backend, DeviceBackend):
        raise InputError(f"expected a backend for a GPU, {_join('cuda')}, got '{name}', which is for the CPU.")
    return backend


def choose_backend(kind: str) -> Backend:
    """Return the first backend of a kind of device that is installed, and has such a device here if any has.

    Raises:
        MissingExtraError: none is; the message says how to get the first.
    """
    candidates = list_backends(kind)
    installed = [backend for backend in candidates.values() if backend.find().version is not None]
    for backend in (*(one for one in installed if one.find().devices), *installed):
        return backend
    first = next(iter(candidates.values()))
    raise MissingExtraError(
        f"no backend for {kind} is installed ({', '.join(candidates)}). {first.name}: {first.find().remedy}."
    )


def find_version(backend: Backend) -> str:
    """Return the installed version of a backend.

    Raises:
        MissingExtraError: it is not installed; the message holds the install command.
    """
    status = backend.find()
    if status.version is None:
        raise MissingExtraError(f"--backend {backend.name} needs a package that is not installed: {status.remedy}.")
    return status.version


def find_kinds(backend: Backend) -> tuple[str, ...]:
    """Return the kinds of device that a backend is for: "cuda" for "cuda" and "cuda:N"."""
    return tuple(dict.fromkeys(form.partition(":")[0] for form in backend.devices))


def parse_device(text: str) -> tuple[str, int]:
    """Return the kind and the number of a device: ("cpu", 0), or ("cuda", 1) for "cuda:1".

    Raises:
        InputError: no backend takes such a device.
    """
    kind, colon, number = text.partition(":")
    form = f"{kind}:N" if colon and number.isdecimal() and number.isascii() else text
    known = [form for backend in find_built_in().values() for form in backend.devices]
    if form not in known:
        known = [form for backend in list_backends().values() for form in backend.devices]
    if form not in known:
        raise InputError(f"expected a device of {', '.join(dict.fromkeys(known))}, got '{text}'.")
    return kind, int(number or 0)


def _join(kind: str) -> str:
    return " or ".join(list_backends(kind))
