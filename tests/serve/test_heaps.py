"""A service that runs for long shares its heaps between all threads, however many gRPC starts."""

import asyncio
import platform
import subprocess
import sys
from typing import Any

import pytest

from ndp_rt.serve import server

COUNT_HEAPS = """
import ctypes, sys, tempfile, threading
from ndp_rt.serve.server import share_heaps

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
if sys.argv[1] == "shared":
    share_heaps()
together = threading.Barrier(12)

def hold():
    libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=hold) for _ in range(12)]
for one in threads:
    one.start()
for one in threads:
    one.join()
with tempfile.NamedTemporaryFile() as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap "))
"""


def count_heaps(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_HEAPS, how], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose threads have heaps of their own")
def test_threads_share_two_heaps() -> None:
    assert count_heaps("each its own") > 2 >= count_heaps("shared")


def test_a_service_begins_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def share_heaps() -> None:
        raise Reached

    monkeypatch.setattr(server, "share_heaps", share_heaps)
    unused: Any = None
    with pytest.raises(Reached):
        asyncio.run(server.serve(unused, unused, server.ServerOptions(port=0, grpc_port=0), print))
