"""How MemSeg's preset `lite` trains: statistics of good images, the head on painted defects, then the fusion."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ndp_rt.evaluate.metrics import measure_rocauc
from ndp_rt.export.features.extract import extract, read_batches
from ndp_rt.export.features.statistics import enlarge
from ndp_rt.export.features.training import PretrainedTraining
from ndp_rt.export.models.family import Phase, Say, TrainData
from ndp_rt.export.models.memseg.losses import segmentation_losses
from ndp_rt.export.models.memseg.network import STRIDES, MemSegLite
from ndp_rt.export.models.memseg.settings import MemSegSettings
from ndp_rt.export.training.run_folder import RunFolder

SHARES = (0.2, 0.35, 0.5, 0.75, 1.0)  # of the statistics in the fused map, against the head's 1
UNUSUAL_SCORE = 8.0  # of the statistics, in standard deviations: plainly unusual
CERTAIN_VALUES = (0.05, 0.95)  # of the map: where neither sees anything, and where both are certain of a defect
SMALLEST_SPREAD = 0.01  # of the head's probabilities on good images; less would drown the statistics
SMOOTH_SIDE = 3  # at half the image's size, about as the decision smooths the fused map


def choose_share(areas: Mapping[float, float], defect_count: int, good_count: int) -> float:
    """Return the largest share whose area under the ROC curve is within one standard error of the best.

    The head has seen painted defects, if of other kinds; the statistics have seen none, and hold where real defects
    resemble no painted one. So painted defects decide for the head only as far as their number can tell (Hanley and
    McNeil 1982, for the error).
    """
    best = max(areas.values())
    first, second = best / (2.0 - best), 2.0 * best**2 / (1.0 + best)
    variance = best * (1.0 - best) + (defect_count - 1) * (first - best**2) + (good_count - 1) * (second - best**2)
    error = math.sqrt(max(0.0, variance) / (defect_count * good_count))
    return max(share for share, area in areas.items() if area >= best - error)


class MemSegTraining(PretrainedTraining):
    """One training run of MemSeg."""

    settings: MemSegSettings

    def load(self, data: TrainData, say: Say) -> None:
        """Make the network, and fit the statistics."""
        settings, self.data = self.settings, data
        self.model = MemSegLite(settings.backbone, settings.height_px, settings.width_px)
        backbone = self.load_weights(self.model.backbone.strides)
        self.model.backbone = backbone
        self.model.to(settings.device)
        self.average = self.average_weights(self.model.head, settings.averaging)
        self.modules = {"model": self.model, "average": self.average}
        fitted = self.choose_fitted(data, say)
        self.model.memory.fit(extract(backbone, fitted, range(len(fitted)), settings.device))

    def begin_phase(self, phase: int) -> Phase:
        model, settings = self.model, self.settings
        model.eval()
        model.head.train()

        def find_losses(good: Tensor, defective: Tensor, mask: Tensor) -> dict[str, Tensor]:
            self.average.update_parameters(model.head)
            with torch.no_grad(), torch.autocast(defective.device.type, enabled=False):  # distances need float32
                inputs, _ = model.memory(model.backbone(defective))
            return segmentation_losses(enlarge(model.head(inputs), STRIDES[0]), mask, settings)

        optimizer = torch.optim.AdamW(
            model.head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
        )
        return Phase(optimizer=optimizer, find_losses=find_losses)

    def end_phase(self, phase: int, folder: RunFolder, say: Say) -> dict[str, Any]:
        """Take the averaged head, and choose the statistics' share and the map's range on held-out good images."""
        self.model.head.load_state_dict(self.average.module.state_dict())
        return self._choose_fusion(say)

    @torch.no_grad()
    def _choose_fusion(self, say: Say) -> dict[str, Any]:
        model, held_out = self.model.eval(), self.data.validation
        assert held_out is not None
        good = self._find_maps(read_batches(held_out, range(len(held_out)), self.settings.device))
        model.defect.fit(good[0])
        model.defect.spread.clamp_(min=SMALLEST_SPREAD)
        model.unusual.fit(good[1])
        batches, is_defective = self.paint_validation(self.data)
        maps = self._find_maps(batches)
        areas = {}
        for share in SHARES:
            model.statistics_share.fill_(share)
            peaks = model.fuse(*maps).amax(dim=(1, 2, 3)).cpu().numpy()
            areas[share] = measure_rocauc(peaks, is_defective)
        share = choose_share(areas, int(is_defective.sum()), int((~is_defective).sum()))
        model.statistics_share.fill_(share)
        certain = float((1.0 - model.defect.mean) / model.defect.spread) + share * UNUSUAL_SCORE
        model.range.fit((0.0, certain), CERTAIN_VALUES)
        say(
            f"image ROCAUC {areas[share]:.3f} on {is_defective.sum()} painted defects of kinds that were not "
            f"trained on; the statistics' share of the map: {share:g}"
        )
        return {"statistics_share": share, "painted_image_rocauc": round(areas[share], 4)}

    @torch.no_grad()
    def _find_maps(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the head's and the statistics' maps [n, 1, h/2, w/2] of batches of images, smoothed."""
        found = [self.model.find_maps(batch) for batch in batches]
        probability, scores, _ = (torch.cat(maps) for maps in zip(*found, strict=True))
        return functional.avg_pool2d(probability, SMOOTH_SIDE, stride=1, padding=SMOOTH_SIDE // 2), scores
