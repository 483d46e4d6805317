"""The error tree: everything that ndp-rt raises on purpose is an NdpRtError and a builtin exception too.

A message reads `image: expected uint8 [h, w], got float64 [480, 640]. What to do.` `status` is the value that the C API
returns for the class; values are fixed for ever, new classes get new ones.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import ClassVar


class NdpRtError(Exception):
    """The base of all errors of ndp-rt; catch it to catch every one.

    Attributes:
        status: the value that the C API returns for the class.

    Examples:
        >>> from ndp_rt import Inspector, NdpRtError
        >>> try:
        ...     Inspector.open("missing.ndp")
        ... except NdpRtError as error:
        ...     print(type(error).__name__, isinstance(error, ValueError))
        BundleError True
    """

    status: ClassVar[int] = 1


class InputError(NdpRtError, ValueError):
    """An argument or an array that the call does not accept."""

    status = 2


class ImageFileError(NdpRtError, OSError):
    """An image file that is missing, empty, cut short, too large, or of another format."""

    status = 3


class DataError(NdpRtError, ValueError):
    """A folder of training or evaluation images that cannot be used as it is."""

    status = 4


class BundleError(NdpRtError, ValueError):
    """A bundle that is missing, damaged, changed, or of a newer format."""

    status = 5


class EngineError(NdpRtError, RuntimeError):
    """An engine that could not be built, loaded or run, or whose results differ from its bundle's golden vectors."""

    status = 6


class MissingExtraError(NdpRtError, ImportError):
    """A package that the call needs and that is not installed; the message holds the install command."""

    status = 7


class StorageError(NdpRtError, OSError):
    """A file or folder that could not be written: no space, no permission, read-only."""

    status = 8


class ClosedError(NdpRtError, RuntimeError):
    """A call on an object after its close()."""

    status = 9


class DeviceError(NdpRtError, RuntimeError):
    """A device that is not there, or that failed."""

    status = 10


class RunError(NdpRtError, RuntimeError):
    """A training run that is missing, damaged, unfinished, or was made with other settings."""

    status = 11


class HostError(NdpRtError, RuntimeError):
    """A process in which engines cannot run, because of what it has loaded, set or limited; the message says what."""

    status = 12


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise InputError unless `value`, the argument `name`, is one of `choices`."""
    if value not in choices:
        raise InputError(f"{name}: expected one of {', '.join(map(str, choices))}, got {value!r}.")


@contextlib.contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Turn the ImportError of a package that is not installed into a MissingExtraError with the command to install it.

    Args:
        what: is being done, as the message's first words: "writing Parquet".
        extra: of ndp-rt, which brings the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ndp_rt"):
            raise
        raise MissingExtraError(
            f"{what} needs the package {error.name}, which is not installed. Run: pip install 'ndp-rt[{extra}]'"
        ) from error
