"""What the assembler makes of rbfrm on tensor cores: registers, blocks of a multiprocessor, the inner loop.

    python -m ndp_rt.bench.assembly [--kernels FOLDER]

Needs nvcc and nvdisasm (`pip install nvidia-cuda-nvdisasm`) on PATH and no GPU. FOLDER is the kernels/ of another
checkout, to compare with.
"""

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.kernels.checks import ELEMENT_CODES
from ndp_rt.kernels.flags import KIB, OPTIONS
from ndp_rt.kernels.source import FOLDER, read_source

FILE, ENTRIES, PATCH = "rbfrm/rbfrm.cu", ("rbfrm_weights", "rbfrm_rebuild"), 2
THREADS = 128  # of a block
# Shared memory of a multiprocessor, from which each block takes 1 KiB more than its own (CUDA programming guide).
SHARED_BYTES = {75: 64 * KIB, 86: 100 * KIB, 89: 100 * KIB, 90: 228 * KIB, 120: 100 * KIB}
BFLOAT16_FROM = 80
REGISTERS, REGISTER_STEP = 65536, 8
COUNTED = ("HMMA", "LDSM", "LD", "LDG", "STS")
HEADER = "| type | tile | sm | kernel | registers | spills, bytes | blocks | loop | " + " | ".join(COUNTED) + " |"
USAGE = r"function '{}'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers.*?(\d+) bytes smem"
LABEL = re.compile(r"^\s*(\.L\w+):")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;")
BRANCH = re.compile(r"BRA.*`\((\.L\w+)\)")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one thread or block of a kernel takes."""

    registers: int
    spill_bytes: int
    shared_bytes: int

    def count_blocks(self, architecture: int) -> int:
        """Return how many blocks a multiprocessor has room for."""
        of_thread = -(-self.registers // REGISTER_STEP) * REGISTER_STEP
        reserved = KIB if architecture >= 80 else 0
        by_shared = SHARED_BYTES[architecture] // (self.shared_bytes + reserved)
        return min(REGISTERS // (of_thread * THREADS), by_shared)


def read_usage(log: str, entry: str) -> Usage:
    """Read what ptxas says of a kernel."""
    found = re.search(USAGE.format(entry), log, re.DOTALL)
    assert found is not None, log
    stores, loads, registers, shared = map(int, found.groups())
    return Usage(registers=registers, spill_bytes=stores + loads, shared_bytes=shared)


def find_inner_loop(listing: str, entry: str) -> list[str]:
    """Return the instructions of a kernel's shortest loop that multiplies matrices; none where there is no such."""
    section = listing.partition(f".section\t.text.{entry},")[2].partition("\t.section\t")[0]
    labels: dict[str, int] = {}
    code: list[str] = []
    for line in section.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(code)
        elif instruction := INSTRUCTION.match(line):
            code.append(instruction[1])
    loops = []
    for index, instruction_text in enumerate(code):
        branch = BRANCH.search(instruction_text)
        start = labels.get(branch[1], len(code)) if branch else len(code)
        body = code[start : index + 1]
        if any("HMMA" in one for one in body):
            loops.append(body)
    return min(loops, key=len, default=[])


def count_kinds(loop: list[str]) -> Counter[str]:
    """Count instructions by the first part of their name, without predicates: LDSM, HMMA, LD."""
    names = [re.sub(r"^@!?U?P\w+\s+", "", one).split()[0].split(".")[0] for one in loop]
    return Counter(names)


def list_rows(kernels: Path, folder: Path) -> Iterator[str]:
    """Compile every form, and return its rows of a table."""
    source, cubin = folder / "kernel.cu", folder / "kernel.cubin"
    source.write_text(read_source(FILE, kernels).text)
    for dtype in ("float16", "bfloat16"):
        for tile in (64, 128):
            defines = {"NDP_RT_ELEMENT": ELEMENT_CODES[dtype], "NDP_RT_PATCH": PATCH, "NDP_RT_TILE": tile}
            macros = [f"-D{name}={value}" for name, value in defines.items()]
            for sm in (sm for sm in SHARED_BYTES if dtype == "float16" or sm >= BFLOAT16_FROM):
                command = ["nvcc", "-cubin", f"-arch=sm_{sm}", *OPTIONS, *macros, "--ptxas-options=-v"]
                log = run([*command, "-o", str(cubin), str(source)])
                listing = run(["nvdisasm", "-c", str(cubin)])
                for entry in ENTRIES:
                    used, loop = read_usage(log, entry), find_inner_loop(listing, entry)
                    kinds = count_kinds(loop)
                    cells = [dtype, tile, sm, entry, used.registers, used.spill_bytes, used.count_blocks(sm), len(loop)]
                    yield "| " + " | ".join(map(str, [*cells, *(kinds[kind] for kind in COUNTED)])) + " |"


def run(command: list[str]) -> str:
    """Return what a command prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]}: expected it to succeed, got:\n{done.stdout}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path, default=FOLDER, metavar="FOLDER", help="of another checkout")
    arguments = parser.parse_args()
    print(HEADER)
    print("|---|--:|--:|---|" + "--:|" * (4 + len(COUNTED)))
    with tempfile.TemporaryDirectory() as folder:
        for row in list_rows(arguments.kernels, Path(folder)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
