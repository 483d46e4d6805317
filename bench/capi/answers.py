"""What an image gave, in the words in which processes tell each other: bits and checksums as hexadecimal digits."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.capi.processes import LineProcess
from ndp_rt.errors import EngineError

Answer = dict[str, Any]  # score, map_sum, mask_sum: 16 digits; defect_count: a number
FIELDS = ("score", "map_sum", "mask_sum", "defect_count")


def write_score(score: float) -> str:
    """Return the bits of a float64."""
    return struct.pack(">d", score).hex()


def read_score(answer: Answer) -> float:
    """Return an answer's score."""
    found: float = struct.unpack(">d", bytes.fromhex(answer["score"]))[0]
    return found


def sum_values(values: NDArray[Any]) -> str:
    """Return the checksum that source/pictures.c makes: each value's bits times an odd number of its place's own."""
    bits = np.ascontiguousarray(values).reshape(-1)
    bits = bits.view(np.uint32) if bits.dtype == np.float32 else bits
    places = 2 * np.arange(bits.size, dtype=np.uint64) + np.uint64(1)
    return f"{int((bits.astype(np.uint64) * places).sum(dtype=np.uint64)):016x}"


def teach(process: LineProcess, picture: int, answer: Answer) -> None:
    """Tell a process what a picture has to give from now on."""
    process.ask("expect", picture, *(answer[name] for name in FIELDS))


def learn(process: LineProcess, inspector: int, picture: int) -> Answer:
    """Have a picture inspected once and its answer expected from now on; return it.

    Raises:
        EngineError: the inspection failed.
    """
    answer = process.ask("answer", inspector, picture)
    teach(process, picture, answer)
    return answer


def check_same(found: Answer, expected: Answer, what: str) -> None:
    """Check that two answers are the same, bit for bit.

    Raises:
        EngineError: they are not; the message names what differs.
    """
    for name in FIELDS:
        if found[name] != expected[name]:
            raise EngineError(f"a wrong answer: {what}: {name} is {found[name]}; {expected[name]} is expected.")
