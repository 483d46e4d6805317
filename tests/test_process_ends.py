"""An interpreter that ends while an inspector works, and a child forked beside one, neither crash nor hang."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_bundle import make_tiny_bundle

REPEAT_COUNT = 3
START = """
import itertools, os, sys, threading, time
import numpy as np
from ndp_rt import Inspector
image = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
inspector = Inspector.open(sys.argv[1], threads=2, backend=sys.argv[2])
"""
ENDS = {
    "a stream alive": "stream = inspector.stream(itertools.repeat(image)); next(stream)",
    "a stream alive whose source waits": """
def wait():
    yield image
    threading.Event().wait()
stream = inspector.stream(wait()); next(stream)
""",
    "a daemon thread inspecting": """
def work():
    while True:
        inspector.inspect(image)
threading.Thread(target=work, daemon=True).start(); time.sleep(0.3)
""",
    "a daemon thread in a stream": """
def work():
    for result in inspector.stream(itertools.repeat(image)):
        pass
threading.Thread(target=work, daemon=True).start(); time.sleep(0.3)
""",
    "a daemon thread in batches": """
def work():
    while True:
        inspector.inspect_batch([image] * 5)
threading.Thread(target=work, daemon=True).start(); time.sleep(0.3)
""",
}
USES = {
    "inspect": "inspector.inspect(image)",
    "batch": "inspector.inspect_batch([image] * 3)",
    "stream": "list(inspector.stream([image] * 3))",
    "large": "inspector.inspect_large(image)",
    "a stream of the parent": "next(stream)",
    "reference": "inspector.set_reference(image)",
    "threshold": "inspector.set_threshold(0.5)",
    "warm_up": "inspector.warm_up()",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.ndp").path


def run(code: str, bundle: Path, backend: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START + code, str(bundle), backend]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("end", ENDS)
def test_an_interpreter_that_ends_meanwhile_does_not_crash(bundle: Path, end: str, backend: str) -> None:
    for _ in range(REPEAT_COUNT):
        done = run(f"{ENDS[end]}\nprint('last line', flush=True)", bundle, backend)
        assert (done.returncode, done.stdout) == (0, "last line\n"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_inspector_in_a_forked_child_is_an_error_at_once(bundle: Path, backend: str) -> None:
    uses = "".join(
        f"""
    try:
        {use}
    except ClosedError as error:
        print({name!r}, "expected the process that opened it" in str(error), flush=True)
"""
        for name, use in USES.items()
    )
    code = f"""
from ndp_rt.errors import ClosedError
stream = inspector.stream(itertools.repeat(image)); next(stream)
pid = os.fork()
if not pid:
{uses}
    inspector.close()
    stream.close()
    os._exit(0)  # as multiprocessing does
_, status = os.waitpid(pid, 0)
print("child ended with", status, "and the parent goes on:", inspector.inspect(image).score == next(stream).score)
"""
    done = run(code, bundle, backend)
    lines = [f"{name} True" for name in USES]
    assert done.stdout.splitlines() == [*lines, "child ended with 0 and the parent goes on: True"], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_forked_child_ends_by_sys_exit_with_its_code_and_its_output(bundle: Path, backend: str) -> None:
    code = """
import ctypes
first = inspector.inspect(image).score
pid = os.fork()
if not pid:
    ctypes.CDLL(None).puts(b"from C")
    print("from Python")
    sys.exit(7)
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), inspector.inspect(image).score == first)
"""
    done = run(code, bundle, backend)
    assert sorted(done.stdout.splitlines()) == ["7 True", "from C", "from Python"], done.stderr
