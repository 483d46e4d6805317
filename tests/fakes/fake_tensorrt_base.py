"""What every class of the fake TensorRT has, and how a builder or runtime is made without a driver."""

from typing import Any

PLAN_MAGIC, CACHE_MAGIC = b"FAKE PLAN ", b"FAKE CACHE "


class Absent:
    """An attribute that a version has not."""

    def __get__(self, owner: object, kind: type) -> None:
        raise AttributeError("this version has no such attribute")

    def __set__(self, owner: object, value: object) -> None:
        raise AttributeError("this version has no such attribute")


ABSENT = Absent()


class Faked:
    """What every class has: the module it belongs to, and refusals that log."""

    __slots__ = ("__weakref__",)
    _lib: Any = None

    def _refuses(self, name: str) -> bool:
        if name in self._lib.knobs.refuses:
            self._log("ERROR", self._lib.knobs.error)
            return True
        return False

    def _log(self, severity: str, message: str) -> None:
        logger = self._lib.knobs.logger
        if logger is not None:
            logger.log(self._lib.ILogger.Severity[severity], message)


def make_with_driver(made: Any, logger: Any) -> None:
    """What making a builder or runtime does: without a driver the bindings get a null pointer and say so their way."""
    knobs = made._lib.knobs
    assert getattr(logger, "_is_made", False), "ILogger.__init__ was not called"
    assert knobs.logger in (None, logger), "TensorRT keeps the first logger, and got another"
    knobs.logger = logger
    if not knobs.has_driver:
        made._log("ERROR", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")
