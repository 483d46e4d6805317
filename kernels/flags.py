"""The kernels' compiler options, and each kernel's limits: registers and shared memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# CuPy adds -ftz=true by itself; it is written here so that every other compiler does the same.
OPTIONS = ("-std=c++17", "-ftz=true")

KIB = 1024
# Shared memory that one block may have, static and dynamic together, by compute capability.
SHARED_LIMIT_BYTES = {
    75: 64 * KIB,
    80: 163 * KIB,
    86: 99 * KIB,
    89: 99 * KIB,
    90: 227 * KIB,
    100: 227 * KIB,
    120: 99 * KIB,
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One kernel as a launcher asks for it; every launch module lists its own as VARIANTS.

    Attributes:
        file: the source, by its path from kernels/.
        entry: the kernel's name in it.
        max_registers: that a thread may use. An SM has 65536: 40 fill one that holds 1536 threads, 64 one of sm_75,
            which holds 1024; with 255 two blocks of 128 threads run at once.
        defines: macros that the source is compiled with.
        dynamic_shared_bytes: the most that a launch asks for.
        architectures: the compute capabilities that it is for.
    """

    file: str
    entry: str
    max_registers: int
    defines: Mapping[str, int] = field(default_factory=dict)
    dynamic_shared_bytes: int = 0
    architectures: tuple[int, ...] = tuple(SHARED_LIMIT_BYTES)


def make_options(defines: Mapping[str, int], sha256: str) -> tuple[str, ...]:
    """Return the compiler's options for a source with this digest.

    CuPy's cache looks at the options and not at what a source includes, so the digest is one of them.
    """
    macros = tuple(f"-D{name}={value}" for name, value in sorted(defines.items()))
    return (*OPTIONS, *macros, f"-DNDP_RT_SOURCE_SHA256={sha256}")
