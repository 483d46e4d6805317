"""The host in C: a wrong answer is noticed in whatever it does, and so is a request that is none."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from ndp_rt.bench.capi.calls import PYTHON_SIDE, learn_answers
from ndp_rt.bench.capi.host import FLAGS, SOURCE, Answer, HostProcess, HostProgram, check_same, learn, teach
from ndp_rt.bench.capi.pictures import load_pictures, make_frame, make_network_pictures
from ndp_rt.bench.capi.soak import run_cycle
from ndp_rt.bench.timed.process import ServiceProcess
from ndp_rt.bundle.open import Bundle
from ndp_rt.capi.installed import list_compile_flags
from ndp_rt.config import find_compiler
from ndp_rt.errors import EngineError

pytestmark = pytest.mark.nightly

MEASUREMENTS = {
    "calls": ("calls", 0, 0, 3, 1, 3),
    "crowd": ("crowd", 2, 1, 40, 0),
    "submit": ("submit", 0, 0, 3, 3),
}
WRONG = {"score": "3fe0000000000001", "map_sum": "1", "defect_count": 4000}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_right_answers_are_taken(process: HostProcess, name: str) -> None:
    assert "error" not in process.ask(*MEASUREMENTS[name])


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name in MEASUREMENTS for field in WRONG],
)
def test_an_answer_that_is_not_the_expected_one_is_noticed(process: HostProcess, name: str, field: str) -> None:
    answer = process.ask("answer", 0, 0)
    teach(process, 0, {**answer, field: WRONG[field]})
    with pytest.raises(EngineError, match="a wrong answer: picture 0"):
        process.ask(*MEASUREMENTS[name])
    teach(process, 0, answer)
    assert "error" not in process.ask(*MEASUREMENTS[name])


def test_the_soak_opens_and_closes_and_notices_a_wrong_answer_too(
    host: HostProgram, bundle: Bundle, tmp_path: Path
) -> None:
    with host.start() as started:
        pictures = load_pictures(started, make_network_pictures(bundle)[:2], tmp_path)
        expected: dict[int, Answer] = {}
        run_cycle(started, bundle.path, pictures, expected)
        run_cycle(started, bundle.path, pictures, expected)
        with pytest.raises(EngineError, match="there is no inspector to close"):
            started.ask("close")
        expected[1] = {**expected[1], "map_sum": "1"}
        with pytest.raises(EngineError, match="a wrong answer: soak, picture 1: map_sum is"):
            run_cycle(started, bundle.path, pictures, expected)


def test_the_python_side_gives_the_same_and_notices_what_is_wrong(
    host: HostProgram, bundle: Bundle, tmp_path: Path
) -> None:
    with host.start() as in_c, ServiceProcess(PYTHON_SIDE) as in_python:
        for one in (in_c, in_python):
            one.ask("open", bundle.path, 1)
        pictures = [make_network_pictures(bundle)[0], make_frame(bundle)]
        answers = learn_answers(in_c, in_python, pictures, tmp_path)
        assert answers[0] != answers[1] and int(answers[0]["map_sum"], 16) > 0
        assert len(in_python.ask("calls", 0, 1, 3, 1, 2)["wall_ms"]) == 2
        teach(in_python, 1, answers[0])
        with pytest.raises(EngineError, match="a wrong answer: picture 1"):
            in_python.ask("calls", 0, 1, 0, 0, 1)
        with pytest.raises(EngineError, match="a wrong answer: C against Python: score is"):
            check_same(learn(in_c, 0, 1), answers[0], "C against Python")


def test_timings_are_asked_for_in_every_thread(process: HostProcess) -> None:
    found = process.ask("timings", 0, 3, 0.1)
    assert found["calls"] >= 3 * 100 and found["calls"] % 100 == 0 and found["cpu_s"] > 0


@pytest.mark.parametrize(
    ("request_words", "message"),
    [
        (("dance",), "'dance' is no request"),
        (("open", "a"), "'open' takes 2 words, not 1"),
        (("answer", 9, 0), "there is no inspector '9'"),
        (("answer", 0, "x"), "there is no picture 'x'"),
        (("open", "no-such.ndp", 1), "NDP_RT_STATUS_BUNDLE"),
        (("picture", "/no/such.raw", 4, 4), "cannot be read"),
        (("expect", 0, "not hexadecimal", "0", 0), "not written as `answer` writes it"),
        (("crowd", 1, 9, 10, 0), "need that many inspectors"),
        (("submit", 0, 0, 2, 5), "slots: expected 3 to"),
        (("timings", 0, 0, 1), "threads: expected 1 to"),
    ],
)
def test_a_request_that_cannot_be_answered_ends_nothing(
    process: HostProcess, request_words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        process.ask(*request_words)
    assert process.read_memory()["rss_bytes"] > 2**20


def test_a_picture_of_another_size_is_refused(process: HostProcess, tmp_path: Path) -> None:
    for byte_count in (47, 49):
        (tmp_path / "odd.raw").write_bytes(bytes(byte_count))
        with pytest.raises(EngineError, match="does not have 48 bytes"):
            process.ask("picture", tmp_path / "odd.raw", 4, 4)


def test_the_sources_give_no_warning(host: HostProgram, tmp_path: Path) -> None:
    sources = [str(path) for path in SOURCE.glob("*.cpp")]
    command = [*find_compiler(), *FLAGS, "-Werror", *list_compile_flags(), "-c", *sources]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and sources, done.stderr


def test_a_host_that_died_is_told_with_its_signal(host: HostProgram) -> None:
    with host.start() as started:
        os.kill(started.process_id, signal.SIGSEGV)
        with pytest.raises(EngineError, match="the C host: its process ended by signal 11"):
            started.ask("close")


def test_memory_descriptors_and_threads_are_those_of_the_host(process: HostProcess) -> None:
    found = process.read_memory()
    one = psutil.Process(process.process_id)
    assert (found["descriptors"], found["threads"]) == (one.num_fds(), one.num_threads())
    assert abs(found["rss_bytes"] - one.memory_info().rss) < 2**22
