"""Why a request is not answered: a sentence, and the code that each protocol has for the reason."""

import asyncio
import logging
from typing import NamedTuple

from ndp_rt.errors import BundleError, ClosedError, ImageFileError, InputError, NdpRtError

log = logging.getLogger("ndp_rt")


class Codes(NamedTuple):
    """A reason's HTTP status and the name of its gRPC status."""

    http: int
    grpc: str


REASONS = {
    "invalid": Codes(400, "INVALID_ARGUMENT"),
    "unauthorised": Codes(401, "UNAUTHENTICATED"),
    "forbidden": Codes(403, "PERMISSION_DENIED"),
    "unknown": Codes(404, "NOT_FOUND"),
    "too-large": Codes(413, "RESOURCE_EXHAUSTED"),
    "full": Codes(429, "RESOURCE_EXHAUSTED"),
    "cancelled": Codes(499, "CANCELLED"),
    "failed": Codes(500, "INTERNAL"),
    "unavailable": Codes(503, "UNAVAILABLE"),
    "expired": Codes(504, "DEADLINE_EXCEEDED"),
}


class Refusal(Exception):
    """A request that the service does not answer, for one of REASONS; it goes to a client, never to a caller."""

    def __init__(self, reason: str, message: str) -> None:
        """Take the reason and a sentence for the client."""
        super().__init__(message)
        self.reason = reason


def find_reason(error: BaseException) -> str:
    """Return which of REASONS an error is."""
    if isinstance(error, Refusal):
        return error.reason
    if isinstance(error, (InputError, ImageFileError)):
        return "invalid"
    if isinstance(error, (ClosedError, BundleError)):
        return "unavailable"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"


def explain(error: BaseException) -> tuple[str, str]:
    """Return which of REASONS an error is, and what a client is told; log what is a fault of the service.

    Told are our own sentences, and of other errors the kind alone.
    """
    reason = find_reason(error)
    if reason == "failed" and not isinstance(error, NdpRtError):
        log.error("a request failed", exc_info=error)
    if isinstance(error, (NdpRtError, Refusal)):
        return reason, str(error)
    if isinstance(error, MemoryError):
        return reason, "the service has not enough memory for this request."
    return reason, f"the service failed ({type(error).__name__}); its log says more."
