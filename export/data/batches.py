"""Training batches: each is a function of seed, phase and step alone, so that a resumed run sees the same ones."""

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ndp_rt.export.data.images import ChosenImages, GoodImages, to_network
from ndp_rt.export.training.settings import AugmentSettings, TrainSettings
from ndp_rt.images.opencv import cv2
from ndp_rt.images.painting.defects import paint_defect, paint_spots
from ndp_rt.images.painting.kinds import TextureSource
from ndp_rt.images.painting.noise import clip_image

FloatArray = npt.NDArray[np.float32]
Example = tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]  # good [h, w, c], with a defect, mask [h, w]
DrawExample = Callable[[np.random.Generator, FloatArray, TextureSource], Example]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Good images, the same with artificial defects, and the masks; float32, 0 to 1."""

    good: FloatArray  # [n, 3, h, w]
    defective: FloatArray  # [n, 3, h, w]
    mask: FloatArray  # [n, 1, h, w], 0 or 1


def augment(rng: np.random.Generator, image: FloatArray, crop_px: int, settings: AugmentSettings) -> FloatArray:
    """Return a random crop of a good image that is still good: turned, mirrored, its scale, light, sharpness jittered.

    Args:
        rng: the only source of chance.
        image: float32 [h, w, c], 0 to 1; not written.
        crop_px: side of the crop; an axis that is shorter is taken whole.
        settings: how far each change goes; a range of 0 leaves it out.
    """
    height, width = image.shape[:2]
    crop_h, crop_w = min(crop_px, height), min(crop_px, width)
    if rng.random() < settings.warp_share:
        turn = rng.uniform(-settings.turn_degrees, settings.turn_degrees)
        zoom = np.exp(rng.uniform(-settings.zoom, settings.zoom))
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, zoom)
        image = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101).reshape(image.shape)
    top, left = int(rng.integers(height - crop_h + 1)), int(rng.integers(width - crop_w + 1))
    crop = image[top : top + crop_h, left : left + crop_w]
    if settings.is_mirrored:
        if crop_h == crop_w:
            crop = np.rot90(crop, int(rng.integers(4)))
        elif rng.random() < 0.5:
            crop = crop[::-1]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
    crop = np.ascontiguousarray(crop)
    if rng.random() < settings.blur_share:
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.3, 0.8)).reshape(crop.shape)
    mean = crop.mean()
    contrast = rng.uniform(1.0 - settings.contrast, 1.0 + settings.contrast)
    crop = (crop - mean) * contrast + mean + rng.normal(0.0, settings.brightness)
    if rng.random() < settings.noise_share:
        crop = crop + rng.normal(0.0, rng.uniform(0.0, settings.noise), crop.shape)
    return clip_image(crop)


def draw_example(
    rng: np.random.Generator, image: FloatArray, textures: TextureSource, settings: TrainSettings
) -> Example:
    """Return a crop of a good image, augmented, the same with an artificial defect, and the defect's mask."""
    crop = augment(rng, image, settings.crop_px, settings.augment)
    if settings.augment.spot_share > 0.0 and rng.random() < settings.augment.spot_share:
        crop = paint_spots(rng, crop, textures, settings.defects)
    painted, mask = paint_defect(rng, crop, textures, settings.defects)
    return crop, painted, mask


def draw_batch(
    images: GoodImages | ChosenImages,
    textures: TextureSource,
    settings: TrainSettings,
    phase: int,
    step: int,
    draw: DrawExample,
) -> Batch:
    """Return the batch of one step of a phase, 1 being the first; steps count from 0 in each phase."""
    good, defective, masks = [], [], []
    for index in range(settings.batch_size):
        rng = np.random.default_rng([settings.seed, phase, step, index])
        image = images[int(rng.integers(len(images)))]
        crop, painted, mask = draw(rng, image, textures)
        good.append(crop)
        defective.append(painted)
        masks.append(mask)
    return Batch(
        good=to_network(good), defective=to_network(defective), mask=np.stack(masks)[:, None].astype(np.float32)
    )


def draw_batches(
    images: GoodImages | ChosenImages,
    textures: TextureSource,
    settings: TrainSettings,
    phase: int,
    first_step: int,
    draw: DrawExample,
) -> Generator[Batch, None, None]:
    """Yield the batches from first_step to the phase's end; a thread draws the next one while one is used."""
    last_step = settings.phase_steps[phase - 1]
    with ThreadPoolExecutor(1) as pool:
        coming: Future[Batch] | None = None
        for step in range(first_step, last_step):
            ready = coming or pool.submit(draw_batch, images, textures, settings, phase, step, draw)
            batch = ready.result()
            if step + 1 < last_step:
                coming = pool.submit(draw_batch, images, textures, settings, phase, step + 1, draw)
            yield batch
