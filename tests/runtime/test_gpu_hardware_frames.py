"""Frames that lie on the GPU before they are inspected, written late on purpose by whoever made them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.devices.cuda.test_foreign_gpu import LATE_CYCLES, offer_interface, write_late
from tests.runtime.places import ONE_EACH, Place


def inspect_by_dlpack(opened: Any, target: Any, fresh: Any) -> Any:
    import cupy

    late = cupy.cuda.Stream(non_blocking=True)
    write_late(late, target, fresh)
    with late:
        return opened.inspect(target)


def inspect_by_interface(opened: Any, target: Any, fresh: Any) -> Any:
    import cupy

    late = cupy.cuda.Stream(non_blocking=True)
    write_late(late, target, fresh)
    return opened.inspect(offer_interface(target, late.ptr))


def inspect_from_pytorch(opened: Any, target: Any, fresh: Any) -> Any:
    torch = pytest.importorskip("torch", reason="needs PyTorch with CUDA: pip install torch")
    if not torch.cuda.is_available():
        pytest.skip("needs PyTorch with CUDA: pip install torch")
    tensor, source = torch.from_dlpack(target), torch.from_dlpack(fresh)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(LATE_CYCLES)
        tensor.copy_(source)
        return opened.inspect(tensor)


def inspect_in_a_stream(opened: Any, target: Any, fresh: Any) -> Any:
    import cupy

    late = cupy.cuda.Stream(non_blocking=True)

    def hand_over() -> Iterator[Any]:
        for _ in range(4):  # more than there are slots
            frame = cupy.zeros_like(target)
            cupy.cuda.Device().synchronize()
            write_late(late, frame, fresh)
            yield offer_interface(frame, late.ptr)

    return list(opened.stream(hand_over()))[-1]


@pytest.mark.parametrize(
    "inspect_late", [inspect_by_dlpack, inspect_by_interface, inspect_from_pytorch, inspect_in_a_stream]
)
@pytest.mark.parametrize("place", ONE_EACH[1:], indirect=True)
def test_frames_on_the_gpu_are_waited_for_and_read_where_they_are(
    place: Place, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, inspect_late: Callable[..., Any]
) -> None:
    import cupy

    (image,) = place.draw_images(rng, 1)
    runtime, uploads = cupy.cuda.runtime, []
    copy = runtime.memcpyAsync

    def watch_copies(dst: int, src: int, size: int, kind: int, stream: int) -> None:
        if kind == runtime.memcpyHostToDevice:
            uploads.append(size)
        copy(dst, src, size, kind, stream)

    with place.open() as opened:
        expected, blank = (opened.inspect(one).anomaly_map for one in (image, np.zeros_like(image)))
        target, fresh = cupy.zeros(image.shape, np.uint8), cupy.asarray(image)
        cupy.cuda.Device().synchronize()
        monkeypatch.setattr(runtime, "memcpyAsync", watch_copies)
        found = inspect_late(opened, target, fresh).anomaly_map
        assert uploads == []
        opened.inspect(image)
        assert uploads != []  # what counts them does
    assert not np.array_equal(found, blank), "the frame was read before its producer had written it"
    assert np.array_equal(found, expected)
