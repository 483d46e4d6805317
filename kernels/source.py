"""Reads a kernel's source with the project's own headers in place of their includes."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.errors import InputError

FOLDER = Path(__file__).parent
OWN_INCLUDE = re.compile(r'[ \t]*#[ \t]*include[ \t]+"(?P<file>[^"]+)"')


@dataclass(frozen=True, kw_only=True)
class KernelSource:
    """A kernel file as the compiler gets it."""

    file: str
    text: str
    sha256: str


def read_source(file: str, folder: Path = FOLDER) -> KernelSource:
    """Read a kernel file and put each header of ours, once, where it is first included.

    A header is looked for beside the file that includes it, then from `folder`. Includes of ours stand outside of
    conditions; includes in angle brackets are left to the compiler.

    Args:
        file: the path from `folder`, with "/"; or an absolute path, of an op that another package brings.
        folder: kernels/.

    Raises:
        InputError: there is no such file, or no such header.
    """
    path = _find(file, [folder])
    text = "\n".join(_expand(path, folder, set())) + "\n"
    return KernelSource(file=file, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())


def _find(file: str, folders: list[Path]) -> Path:
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    places = " or ".join(map(str, folders))
    raise InputError(f"expected the kernel file '{file}' in {places}; it is not there. Install the package again.")


def _expand(path: Path, folder: Path, seen: set[Path]) -> list[str]:
    seen.add(path)
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = OWN_INCLUDE.match(line)
        if match is None:
            lines.append(line)
            continue
        header = _find(match["file"], [path.parent, folder])
        if header in seen:
            lines.append("")
        else:
            lines += [*_expand(header, folder, seen), f'#line {number + 1} "{name}"']
    return lines
