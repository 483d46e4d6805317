"""What a build tells meanwhile and afterwards: TensorRT's log, errors and progress."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from ndp_rt.engines.backends.tensorrt import logger
from ndp_rt.engines.backends.tensorrt.progress import BuildProgress
from ndp_rt.errors import EngineError, StorageError
from tests.engines.backends.tensorrt.conftest import Stage


def test_the_logger_never_raises_and_is_one_for_the_process(trt: Any) -> None:
    def fail(severity: str, message: str) -> None:
        raise RuntimeError

    lines: list[tuple[str, str]] = []
    with logger.listen(trt, fail), logger.listen(trt, lambda *line: lines.append(line)):
        logger.get_log(trt).log(trt.ILogger.Severity.INTERNAL_ERROR, "so\n  wrong")
    logger.get_log(trt).log(trt.ILogger.Severity.INFO, "unheard")
    assert lines == [("INTERNAL_ERROR", "so\n  wrong")]
    assert logger.describe_errors(trt, 0) == "so wrong" and logger.get_log(trt) is logger.get_log(trt)


def test_of_many_errors_the_first_and_the_last_are_told(trt: Any) -> None:
    log = logger.get_log(trt)
    log.log(trt.ILogger.Severity.ERROR, "an old story")
    before = log.error_count
    assert logger.describe_errors(trt, before) == "its log holds no error"
    for text in ("no implementation for conv1", "in between", "Assertion engine != nullptr failed."):
        log.log(trt.ILogger.Severity.ERROR, text)
    assert (
        logger.describe_errors(trt, before) == "no implementation for conv1 [then] Assertion engine != nullptr failed."
    )
    for index in range(200):
        log.log(trt.ILogger.Severity.ERROR, f"error {index}")
    assert logger.describe_errors(trt, before) == "error 136 [then] error 199"


def test_a_log_that_cannot_be_written_is_a_storage_error_after_the_build(
    trt: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk:
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

    disk = contextlib.nullcontext(FullDisk())
    monkeypatch.setattr(logger.Path, "open", lambda self, *arguments, **options: disk)
    message = r"build.log: the build's log cannot be written \(No space left"
    with pytest.raises(StorageError, match=message), logger.keep_log(trt, stage.folder / "build.log"):
        logger.get_log(trt).log(trt.ILogger.Severity.INFO, "x")
        logger.get_log(trt).log(trt.ILogger.Severity.INFO, "y")


def test_progress_is_a_line_now_and_then(any_version: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndp_rt.engines.backends.tensorrt.progress.LINE_EVERY_S", 0.0)
    stage.compile(stage.options())
    words = "Detected 1 inputs" if any_version.__version__.startswith("8.") else "Building the engine: 2 of 2"
    assert any(words in line and line.startswith("building, 0 s: ") for line in stage.lines)


def test_progress_is_not_told_too_often_and_a_build_that_nobody_waits_for_ends() -> None:
    lines: list[str] = []
    times = iter([0.0, 0.5, 1.9, 2.0, 2.1, 9.0])
    progress = BuildProgress(lines.append, lambda: next(times))
    progress.start("tactics", 40)
    assert progress.advance("tactics", 3) and progress.advance("tactics", 4) and progress.advance("tactics", 5)
    progress.finish("tactics")
    progress.take_line("VERBOSE", "x")
    progress.take_line("INFO", "a  line")
    assert lines == ["building, 2 s: tactics: 5 of 40", "building, 9 s: a line"]

    def leave(line: str) -> None:
        raise BrokenPipeError

    abandoned = BuildProgress(leave, iter([0.0, 3.0]).__next__)
    assert not abandoned.advance("tactics", 1)


def test_a_build_whose_reader_is_gone_is_ended(trt: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndp_rt.engines.backends.tensorrt.progress.LINE_EVERY_S", 0.0)

    def leave(line: str) -> None:
        raise BrokenPipeError

    with pytest.raises(EngineError, match="its log holds no error"):
        stage.compile(replace(stage.options(), tell=leave))
