"""Bounds the memory that requests and unread answers of all clients take together."""

from collections import Counter

from ndp_rt.serve.refusals import Refusal

HELD_BODIES = 16  # of the largest size that are in memory together, with answers; what comes beyond them is refused
LARGE_ANSWER_BYTES = 2**16  # a smaller one is not counted


class HeldBytes:
    """Counts them; is used by one thread."""

    def __init__(self, body_bytes: int) -> None:
        """Take the largest size of a body."""
        self.count = 0
        self.limit = HELD_BODIES * body_bytes
        self._of_peers: Counter[str] = Counter()

    def hold_body(self, byte_count: int) -> None:
        """Count a body, or what has come of it.

        Raises:
            Refusal: there is no room.
        """
        if self.count + byte_count > self.limit:
            raise Refusal("full", "other requests take all the memory for bodies. Try again later.")
        self.count += byte_count

    def hold_answer(self, byte_count: int, peer: str | None = None) -> None:
        """Count an answer, which may be larger than all that.

        Args:
            byte_count: of it.
            peer: the address of the client, where nothing ends one that does not read: it has half of the room at most.

        Raises:
            Refusal: others, which are not read yet, take all the room.
        """
        if self.count > self.limit or (peer is not None and self._of_peers[peer] > self.limit // 2):
            raise Refusal("full", "answers that are not read yet take all the memory for them. Try again later.")
        self.count += byte_count
        if peer is not None:
            self._of_peers[peer] += byte_count

    def release(self, byte_count: int, peer: str | None = None) -> None:
        """Give room back."""
        self.count -= byte_count
        if peer is not None:
            self._of_peers[peer] -= byte_count
            self._of_peers += Counter()  # without those that are 0
