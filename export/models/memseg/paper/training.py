"""How MemSeg's preset `paper` trains: the memory is filled, then the rest learns to find simulated anomalies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ndp_rt.arrays import FloatArray
from ndp_rt.evaluate.metrics import measure_rocauc
from ndp_rt.export.data.batches import Example, augment
from ndp_rt.export.data.images import ChosenImages
from ndp_rt.export.features.extract import choose_evenly, extract
from ndp_rt.export.features.training import PretrainedTraining
from ndp_rt.export.models.family import Phase, Say, TrainData
from ndp_rt.export.models.memseg.paper.losses import find_losses
from ndp_rt.export.models.memseg.paper.network import DEEP_STRIDE, SCALES, STRIDES, MemSegPaper
from ndp_rt.export.models.memseg.paper.settings import PaperSettings
from ndp_rt.export.training.run_folder import RunFolder
from ndp_rt.images.painting.defects import ALWAYS, paint_defect
from ndp_rt.images.painting.kinds import TextureSource
from ndp_rt.images.painting.simulation import simulate_anomaly, take_structure

SCALED_COUNT = 32  # good images that features and differences are scaled by
WINDOW_STREAM = 0x317D  # keeps these random numbers apart from the batches'
TOP_COUNT = 100  # pixels whose mean is the score


class PaperTraining(PretrainedTraining):
    """One training run of the preset."""

    settings: PaperSettings

    def load(self, data: TrainData, say: Say) -> None:
        """Make the network, and fill its memory.

        **Choice**: the images of the memory are taken evenly from the sorted list, where the authors take its first:
        neighbours in the list are often of one piece. As with the authors, nothing else is trained on them.
        """
        settings, self.data = self.settings, data
        count = min(settings.memory_image_count, len(data.images) // 2)
        remembered = choose_evenly(len(data.images), count)
        self.memory_count = count if settings.memory == "images" else settings.memory_patch_count
        self.model = MemSegPaper(
            settings.backbone,
            settings.height_px,
            settings.width_px,
            memory=settings.memory,
            count=self.memory_count,
        )
        self.model.encoder.backbone = self.load_weights(STRIDES)
        self.model.segmentation.deep = self.load_weights((*STRIDES, DEEP_STRIDE)).take_blocks(DEEP_STRIDE)
        self.model.segmentation.deep.requires_grad_(True)
        self.model.to(settings.device)
        self.modules = {"model": self.model}
        self.drawn = ChosenImages(data.images, [n for n in range(len(data.images)) if n not in set(remembered)])
        self._fill_memory(remembered)
        self.average = self.average_weights(self.model.segmentation, settings.averaging)
        self.modules["average"] = self.average
        what = "images" if settings.memory == "images" else f"patches a level, of {count} images"
        say(f"memory of {self.memory_count} {what}; {len(self.drawn)} images to train on")

    @torch.no_grad()
    def _fill_memory(self, remembered: list[int]) -> None:
        model, device, border = self.model.eval(), self.settings.device, len(STRIDES)
        model.memory.fill(extract(model.encoder, self.data.images, remembered, device, lambda found: found[border:]))
        chosen = choose_evenly(len(self.drawn), SCALED_COUNT)
        values = extract(
            model.encoder,
            self.drawn,
            chosen,
            device,
            lambda found: (*found[1:border], *model.memory(found[border:])),
        )
        scales = [*model.segmentation.feature_scales, *model.segmentation.difference_scales]
        for scale, value in zip(scales, values, strict=True):
            scale.fit(value, SCALES.get(self.settings.backbone))

    def draw_example(self, rng: np.random.Generator, image: FloatArray, textures: TextureSource) -> Example:
        """Return a good crop, the same with a simulated anomaly, and the mask.

        Half of the anomalies are a texture and half a structure. **Choice**: without a folder of textures, defects as
        the other families paint them take the texture's place.
        """
        crop = augment(rng, image, self.settings.crop_px, self.settings.augment)
        if rng.random() < 0.5:
            return (crop, *simulate_anomaly(rng, crop, take_structure))
        if getattr(textures, "is_altered", False):  # the data itself
            return (crop, *paint_defect(rng, crop, textures, ALWAYS))
        return (crop, *simulate_anomaly(rng, crop, lambda rng, image: _take_texture(rng, image, textures)))

    def begin_phase(self, phase: int) -> Phase:
        model, settings = self.model, self.settings
        model.train()

        def losses(good: Tensor, defective: Tensor, mask: Tensor) -> dict[str, Tensor]:
            self.average.update_parameters(model.segmentation)
            images = torch.cat([good, defective])
            masks = torch.cat([torch.zeros_like(mask), mask])
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # distances need float32
                found = model.encoder(images)
                levels = [*found[: len(STRIDES)], *model.memory(found[len(STRIDES) :])]
            if settings.window_px:
                rng = np.random.default_rng([settings.seed, WINDOW_STREAM, int(self.average.n_averaged)])
                *levels, masks = cut_windows(rng, [*levels, masks], settings.window_px)
            logits = model.segmentation.find_logits(levels[0], levels[1 : len(STRIDES)], levels[len(STRIDES) :])
            return find_losses(logits, masks, settings)

        return Phase(optimizer=self._make_optimizer(), find_losses=losses, images=self.drawn)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        settings, parameters = self.settings, self.model.segmentation.parameters()
        rate, decay = settings.learning_rate, settings.weight_decay
        if settings.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, foreach=False)
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=settings.momentum, foreach=False)

    def end_phase(self, phase: int, folder: RunFolder, say: Say) -> dict[str, Any]:
        """Take the averaged weights or the last, whichever tells more painted defects of other kinds from good images.

        The images are held out from training. No label from people is used.
        """
        batches, is_defective = self.paint_validation(self.data)
        last = {name: tensor.clone() for name, tensor in self.model.segmentation.state_dict().items()}
        areas = {"last": self._judge(batches, is_defective)}
        self.model.segmentation.load_state_dict(self.average.module.state_dict())
        areas["averaged"] = self._judge(batches, is_defective)
        chosen = "averaged" if areas["averaged"] >= areas["last"] else "last"
        if chosen == "last":
            self.model.segmentation.load_state_dict(last)
        say(
            f"image ROCAUC {areas[chosen]:.3f} on {is_defective.sum()} painted defects of kinds that were not trained "
            f"on, with the {chosen} weights"
        )
        return {
            "memory_count": self.memory_count,
            "weights": chosen,
            "painted_image_rocauc": {name: round(area, 4) for name, area in areas.items()},
        }

    @torch.no_grad()
    def _judge(self, batches: tuple[Tensor, ...], is_defective: Any) -> float:
        self.model.eval()
        maps = torch.cat([self.model(batch)[0] for batch in batches])
        flat = maps.flatten(1)
        scores = flat.topk(min(TOP_COUNT, flat.shape[1]), dim=1).values.mean(dim=1)
        return measure_rocauc(scores.cpu().numpy(), is_defective)

    def describe(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {"memory_count": self.memory_count, **facts}


def cut_windows(rng: np.random.Generator, levels: Sequence[Tensor], side_px: int) -> list[Tensor]:
    """Return the same random window, a square, of each image in all of its levels.

    Args:
        rng: the only source of chance.
        levels: [n, c, h / s, w / s], the last at the images' size.
        side_px: of the window, a multiple of DEEP_STRIDE; an axis that is shorter is taken whole.
    """
    n, _, *size = levels[-1].shape
    sides = [min(side_px, length) for length in size]
    starts = [
        rng.integers((length - side) // DEEP_STRIDE + 1, size=n) for length, side in zip(size, sides, strict=True)
    ]
    cut = []
    for level in levels:
        stride = size[0] // level.shape[2]
        (h, w), per_step = (side // stride for side in sides), DEEP_STRIDE // stride
        corners = zip(*(start * per_step for start in starts), strict=True)
        parts = [one[:, y : y + h, x : x + w] for one, (y, x) in zip(level, corners, strict=True)]
        cut.append(torch.stack(parts).contiguous(memory_format=torch.channels_last))
    return cut


def _take_texture(rng: np.random.Generator, image: FloatArray, textures: TextureSource) -> FloatArray:
    texture = textures(rng, *image.shape[:2])
    return texture if image.shape[2] == 3 else texture.mean(axis=2, keepdims=True)
