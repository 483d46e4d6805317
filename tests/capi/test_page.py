"""docs/capi.md: its code compiles, and its tables leave nothing out."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ndp_rt.capi.build import INCLUDE, read_header
from ndp_rt.config import find_compiler
from tests.capi.library import STRICT

PAGE = (Path(__file__).parent.parent.parent / "docs" / "capi.md").read_text(encoding="utf-8")
# What the page's code takes for given: a reader's own program has these.
GIVEN = """
#include <ndp_rt.h>

struct slot { ndp_rt_image image; ndp_rt_result result; };
void take_decision(void *user, ndp_rt_status status, ndp_rt_result *result);
void free_slot(struct slot *slot);
void use(ndp_rt_inspector *inspector, struct slot *slot, const uint8_t *frame, float *map, int64_t pitch, int64_t top,
         int64_t left, int64_t width, int64_t height);

void use(ndp_rt_inspector *inspector, struct slot *slot, const uint8_t *frame, float *map, int64_t pitch, int64_t top,
         int64_t left, int64_t width, int64_t height)
{
    int dropped_count = 0;
"""


def list_code() -> list[str]:
    """Return the blocks of C on the page; they are marked as text, like those of the other pages."""
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)
    return [text for text in blocks if re.search(r"ndp_rt_\w+ .*=", text)]


def list_names(kind: str) -> list[str]:
    return re.findall(rf"NDP_RT_{kind}_(\w+) = \d+", read_header())


def test_the_code_on_the_page_compiles() -> None:
    blocks = list_code()
    assert len(blocks) == 3
    body = "".join(f"    {{\n{text}\n    }}\n" for text in blocks)
    command = [*find_compiler(), *STRICT, "-Wno-unused", f"-I{INCLUDE}", "-fsyntax-only", "-x", "c", "-"]
    if shutil.which(command[0]) is None:
        pytest.skip("needs a C compiler: sudo apt install gcc")
    done = subprocess.run(command, input=f"{GIVEN}{body}}}\n", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_page_says_what_to_do_with_every_status() -> None:
    section = PAGE.partition("\n## Errors\n")[2].partition("\n## ")[0]
    named = re.findall(r"`([A-Z_]+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.M)))
    assert sorted(named) == sorted(set(list_names("STATUS")) - {"OK"})


def test_the_page_names_every_pixel_format() -> None:
    section = PAGE.partition("\n## Images\n")[2].partition("\n## ")[0]
    named = re.findall(r"`([A-Z]+\d+)`", section)
    assert sorted(named) == sorted(name for name in list_names("PIXEL") if not name.startswith("BAYER"))


def test_every_line_on_hosts_names_a_test_that_there_is() -> None:
    section = PAGE.partition("\n## What the host must and must not do\n")[2].partition("\n## ")[0]
    rows = [row for row in re.findall(r"^\| (.*) \|$", section, re.M) if not row.startswith("the host |")]
    named = [re.search(r"`(test_\w+)`$", row) for row in rows]
    assert len(rows) > 15 and None not in named
    files = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    tests = set(re.findall(r"^def (test_\w+)", "\n".join(files), re.M))
    assert {found[1] for found in named if found} <= tests
