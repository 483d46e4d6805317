"""The error tree: everything that ndp-rt raises on purpose is an NdpRtError and a builtin exception too.

A message says what came, what is taken and what to do. `status` is the value the C API returns for the class;
values are fixed for ever, new classes get new ones.
"""

from typing import ClassVar


class NdpRtError(Exception):
    """The root; catch it to catch all of ours."""

    status: ClassVar[int] = 1


class InputError(NdpRtError, ValueError):
    """An argument or an array that the call does not take."""

    status = 2


class ImageFileError(NdpRtError, OSError):
    """An image file that is missing, empty, cut short, no image, or too large."""

    status = 3


class DataError(NdpRtError, ValueError):
    """A folder of training or evaluation images that cannot be used as it is."""

    status = 4


class BundleError(NdpRtError, ValueError):
    """A bundle that is missing, damaged, changed, or of a newer format."""

    status = 5


class EngineError(NdpRtError, RuntimeError):
    """An engine that could not be built, loaded or run, or does not compute what its bundle promises."""

    status = 6


class MissingExtraError(NdpRtError, ImportError):
    """A package that the call needs is not installed; the message holds the install command."""

    status = 7


class StorageError(NdpRtError, OSError):
    """Something could not be written: no space, no permission, a read-only folder."""

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
