"""What a process has loaded, set or limited: told apart by what the kernel and the loader say."""

import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt.devices.host_process import CORE_FILES, check_cores_listed, check_only_copy, list_libraries
from ndp_rt.errors import HostError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def test_one_list_of_cores_is_enough(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"expected them to be listed in .*/proc/cpuinfo or .*, got neither"):
        check_cores_listed(tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("")
    with pytest.raises(HostError):
        check_cores_listed(tmp_path)
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\n")
    check_cores_listed(tmp_path)
    (tmp_path / "proc" / "cpuinfo").unlink()
    for name in CORE_FILES:
        with pytest.raises(HostError):
            check_cores_listed(tmp_path)
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("0\n")
    check_cores_listed(tmp_path)
    check_cores_listed()


def test_a_librarys_other_copy_is_told_from_its_own_by_the_folder(tmp_path: Path) -> None:
    own, link = tmp_path / "libs", tmp_path / "link"
    own.mkdir()
    link.symlink_to(own)
    check_only_copy("libx.so", own, [str(own / "libx.so.1"), str(link / "libx.so.1"), "/usr/lib/libxx.so", "/bin/x"])
    with pytest.raises(HostError, match=r"libx\.so: expected the one in .*/libs, got /usr/lib/libx\.so\.2, "):
        check_only_copy("libx.so", own, ["/usr/lib/libx.so.2"])


def test_loaded_libraries_are_those_of_this_process() -> None:
    assert any(Path(path).name.startswith("libc.so") for path in list_libraries())


LIST_AND_LOAD = """
import _ctypes, importlib.util, threading
from ndp_rt.devices.host_process import list_libraries
path = importlib.util.find_spec("_cffi_backend").origin
is_done = threading.Event()
def load():  # as an import does: with the interpreter's lock held
    while not is_done.is_set():
        _ctypes.dlclose(_ctypes.dlopen(path, 2))
loader = threading.Thread(target=load)
loader.start()
for _ in range(250):
    assert list_libraries()
is_done.set()
loader.join()
"""


def test_libraries_are_listed_while_another_thread_loads_one() -> None:
    subprocess.run([sys.executable, "-c", LIST_AND_LOAD], check=True, timeout=120)


EXPLAIN = """
import resource
from ndp_rt.devices.host_process import explain_failure
print(explain_failure("can't alloc"))
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
print(explain_failure("the graph has a ring"))
print(explain_failure("x.so: failed to map segment from shared object"))
"""


def test_a_limit_explains_only_what_speaks_of_memory() -> None:
    done = subprocess.run([sys.executable, "-c", EXPLAIN], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["None", "None"] and "got a limit of 2048 MiB (ulimit -v" in lines[2]
