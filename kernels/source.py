"""Reads a kernel's source with the project's own headers in place of their includes."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.errors import InputError

FOLDER = Path(__file__).parent / "cuda"
OWN_INCLUDE = re.compile(r'[ \t]*#[ \t]*include[ \t]+"(?P<file>[^"]+)"')


@dataclass(frozen=True, kw_only=True)
class KernelSource:
    """A kernel file as the compiler gets it."""

    file: str
    text: str
    sha256: str


def read_source(file: str, folder: Path = FOLDER) -> KernelSource:
    """Read a kernel file and put each header of ours, once, where it is first included.

    Includes of ours stand outside of conditions; includes in angle brackets are left to the compiler.

    Raises:
        InputError: there is no such file, or no such header.
    """
    text = "\n".join(_expand(file, folder, set())) + "\n"
    return KernelSource(file=file, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())


def _expand(file: str, folder: Path, seen: set[str]) -> list[str]:
    path = folder / file
    if not path.is_file():
        known = ", ".join(sorted(path.name for path in folder.glob("*.cu*")))
        raise InputError(f"there is no kernel file '{file}' in {folder}; it holds: {known}. Is the package whole?")
    seen.add(file)
    lines = [f'#line 1 "{file}"']
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = OWN_INCLUDE.match(line)
        if match is None:
            lines.append(line)
        elif match["file"] in seen:
            lines.append("")
        else:
            lines += [*_expand(match["file"], folder, seen), f'#line {number + 1} "{file}"']
    return lines
