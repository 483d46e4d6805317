"""Many images at once on a host: some are prepared and judged while others compute."""

from collections import deque
from collections.abc import Sequence

from ndp_rt.arrays import FloatArray
from ndp_rt.images.checks import Image
from ndp_rt.result import Result
from ndp_rt.runtime.host import HostBatch, HostExecutor
from ndp_rt.runtime.session import Session

# A round of fewer parts than this share of those that fit in beside each other is left to all threads, part by part:
# these do 0.75 of what they do on a part each (CPU time of `edge` in `mixed`: 48 ms against 36 ms an image).
LEAST_ROUND_SHARE = 0.75


def count_overlapped(image_count: int, size: int, parallel_count: int) -> int:
    """Return how many of the images, from the first, are done sooner beside each other than one part after another.

    Args:
        image_count: 0 or more.
        size: images in a part.
        parallel_count: parts that compute at once; below 2: none do.
    """
    if parallel_count < 2:
        return 0
    part_count = -(-image_count // size)
    left_count = part_count % parallel_count
    if left_count < LEAST_ROUND_SHARE * parallel_count:
        part_count -= left_count
    return min(image_count, part_count * size)


def inspect_overlapped(
    session: Session, images: Sequence[Image], maps_out: Sequence[FloatArray | None], outputs: Sequence[str]
) -> list[Result]:
    """Inspect those of the images, from the first, that are done sooner beside each other; return their results.

    Args:
        session: the caller holds the inspector's lock. On a GPU no image is inspected here.
        images: as `Inspector.inspect_batch` takes them, and checked.
        maps_out: likewise.
        outputs: of the program, beside the map.
    """
    executor = session.executor
    if not isinstance(executor, HostExecutor):
        return []
    size = executor.batch_sizes[0]
    count = count_overlapped(len(images), size, executor.parallel_count)
    if not count:
        return []
    free = list(executor.shared_batches)
    on_way: deque[tuple[int, HostBatch]] = deque()
    results: list[Result] = []

    def finish_oldest() -> None:
        first, batch = on_way[0]
        executor.finish(batch)
        for index, image in enumerate(images[first : min(first + size, count)]):
            size_px = session.check_image(image)
            results.append(session.make_result(batch, index, size_px, maps_out[first + index], outputs))
        on_way.popleft()
        free.append(batch)

    try:
        for first in range(0, count, size):
            if not free:
                finish_oldest()
            batch = free.pop()
            executor.start(batch, images[first : min(first + size, count)], size, outputs=outputs)
            on_way.append((first, batch))
        while on_way:
            finish_oldest()
    finally:
        for _, batch in on_way:  # after an error
            batch.wait()
    return results
