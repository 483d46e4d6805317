"""How NDP-Net trains: phase 1 (encoder and decoder), the choice of the reference, phase 2 (the rest)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ndp_rt.errors import DataError
from ndp_rt.export.data.images import GoodImages, to_network
from ndp_rt.export.data.split import describe_file
from ndp_rt.export.models.family import Phase, Say, TrainData, Training
from ndp_rt.export.models.ndpnet import losses
from ndp_rt.export.models.ndpnet.distil import Distiller
from ndp_rt.export.models.ndpnet.network import REPAIRED_LEVELS, NDPNet
from ndp_rt.export.models.ndpnet.settings import NdpNetSettings
from ndp_rt.export.models.ndpnet.teacher import Teacher, find_teacher, load_teacher
from ndp_rt.export.models.ndpnet.vgg import VGGFeatures, load_vgg
from ndp_rt.export.training.checkpoint import write_atomically
from ndp_rt.export.training.run_folder import RunFolder
from ndp_rt.images.opencv import cv2

REFERENCE_PICTURE = "reference.png"  # in a run's folder and in its bundle: 8 bits RGB at the network's size


class NdpNetTraining(Training):
    """One training run of NDP-Net.

    Args:
        settings: all that decides the weights.
        options: files given: `vgg`, `reference` and `teacher`.
        run: the folder that will be written.

    Raises:
        RunError: the teacher is no trained run, or this one.
        InputError: the teacher takes other images.
        ImageFileError: a file cannot be read.
    """

    def __init__(self, settings: NdpNetSettings, options: Mapping[str, Any], run: Path) -> None:
        super().__init__(settings)
        self.vgg_path: Path | None = options.get("vgg")
        self.reference_path: Path | None = options.get("reference")
        teacher: Path | None = options.get("teacher")
        self.teacher = None if teacher is None else find_teacher(teacher, settings.contract, run)
        self.files = {
            "vgg": self.vgg_path and describe_file(self.vgg_path),
            "reference_file": self.reference_path and describe_file(self.reference_path),
            "teacher": None if self.teacher is None else self.teacher.to_json(),
        }
        self.file_options = {"vgg": "--vgg", "reference_file": "--reference", "teacher": "--teacher"}
        self.vgg: VGGFeatures | None = None
        self.distiller: Distiller | None = None

    @property
    def _own_settings(self) -> NdpNetSettings:
        assert isinstance(self.settings, NdpNetSettings)
        return self.settings

    def load(self, data: TrainData, say: Say) -> None:
        settings, self.data = self._own_settings, data
        if self.teacher is not None:
            _announce_teacher(self.teacher, data, say)
        if self.vgg_path is not None:
            self.vgg = load_vgg(self.vgg_path).to(settings.device)
        else:
            say("no --vgg file: the perceptual loss (L_per) is left out")
        self.reference = None if self.reference_path is None else _load_reference(self.reference_path, settings)
        teacher = None if self.teacher is None else load_teacher(self.teacher, settings.device)
        self.model = NDPNet(settings.width, settings.height_px, settings.width_px).to(settings.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules["model"] = self.model
        if teacher is not None and settings.distil is not None:
            # After the network, whose first weights are then the same with a teacher and without.
            self.distiller = Distiller(teacher, settings.width, settings.distil)
            self.modules["distiller"] = self.distiller.projections

    def begin_phase(self, phase: int) -> Phase:
        settings = self._own_settings
        parameters = start_phase(self.model, phase, settings)
        if self.distiller is not None:
            parameters += self.distiller.parameters(phase)

        def find_losses(good: Tensor, defective: Tensor, mask: Tensor) -> dict[str, Tensor]:
            return phase_losses(self.model, phase, good, defective, mask, self.vgg, settings, self.distiller)

        optimizer = torch.optim.Adam(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
        )
        return Phase(optimizer=optimizer, find_losses=find_losses)

    def end_phase(self, phase: int, folder: RunFolder, say: Say) -> dict[str, Any]:
        """Choose the reference with phase 1's encoder, and keep its features and its picture."""
        if phase != 1:
            return {}
        if self.reference is not None:
            image, name = self.reference[0], str(self.reference_path)
        else:
            index = nearest_to_others(describe_images(self.model, self.data.images, self.settings.device))
            image, name = self.data.images[index], self.data.image_names[index]
        self.model.encoder.eval()
        tensor = torch.from_numpy(to_network([image])).to(self.settings.device)
        self.model.set_reference(tensor.contiguous(memory_format=torch.channels_last))
        _write_reference(folder / REFERENCE_PICTURE, image)
        say(f"reference image: {name}")
        return {"reference_name": name}

    def describe(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        rule = "given by hand" if self.reference_path is not None else "nearest the mean of the others"
        return {"reference": {"name": facts["reference_name"], "rule": rule}}


def _announce_teacher(teacher: Teacher, data: TrainData, say: Say) -> None:
    """Say who teaches, and where it may have seen what this run keeps for calibration."""
    say(f"teacher: {teacher.path.parent}, preset {teacher.settings.preset}, width {teacher.settings.width}")
    if teacher.training_sha256 != data.training_sha256:
        say(
            "the teacher was trained on other images, or it is not known on which: if images that this run holds out "
            "for calibration were among them, the thresholds promise a little too much"
        )


def _load_reference(path: Path, settings: NdpNetSettings) -> GoodImages:
    try:
        return GoodImages([path], settings.contract)
    except DataError as error:
        raise DataError(f"--reference: {error}") from error


def _write_reference(path: Path, image: npt.NDArray[np.float32]) -> None:
    """Write the reference image [h, w, 1 or 3], float32, 0 to 1, as a PNG file."""
    pixels = np.rint(np.broadcast_to(image, (*image.shape[:2], 3)) * 255.0).astype(np.uint8)
    _, content = cv2.imencode(".png", pixels[:, :, ::-1])
    write_atomically(path, content.tobytes())


def start_phase(model: NDPNet, phase: int, settings: NdpNetSettings) -> list[nn.Parameter]:
    """Put the modules into the phase's mode and return the parameters that it trains.

    In phase 2 the encoder's batch norm keeps phase 1's statistics, frozen weights or not: the network then trains in
    the form that it serves in.
    """
    model.train()
    model.requires_grad_(True)
    if phase == 1:
        return [*model.encoder.parameters(), *model.decoder.parameters()]
    model.encoder.eval()
    model.encoder.requires_grad_(not settings.freezes_encoder)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def phase_losses(
    model: NDPNet,
    phase: int,
    good: Tensor,
    defective: Tensor,
    mask: Tensor,
    vgg: VGGFeatures | None,
    settings: NdpNetSettings,
    distiller: Distiller | None = None,
) -> dict[str, Tensor]:
    """Return a phase's losses, weighted; their sum is what it minimises.

    Args:
        model: in the phase's mode (start_phase).
        phase: 1 or 2.
        good, defective: I_o and I_ad, float32 [n, 3, h, w], 0 to 1.
        mask: float32 [n, 1, h, w], 0 or 1.
        vgg: for the perceptual loss, None to leave it out.
        settings: the weights and the focal loss's form.
        distiller: adds the losses of a teacher; None: there is none.
    """
    weights, count = settings.weights, good.shape[0]
    if phase == 1:  # rebuild the good image from its own features, perceive what a defect changes in them
        images = torch.cat([good, defective])
        features = model.encoder(images)  # levels 1 to 5: [2n, c_l, h_l, w_l]
        good_features, defective_features = [f[:count] for f in features], [f[count:] for f in features]
        rebuilt = model.decoder(*good_features[2:])
        perceived = losses.defect_perception_loss(good_features, defective_features, mask)
        found = {"def_per": weights.def_per * perceived}
        taught = {} if distiller is None else distiller.phase_1_losses(images, features)
    else:  # rebuild the good image from the defective one, and find the defect
        with torch.no_grad():
            good_features = model.encoder(good)
        output = model.run(defective)
        rebuilt = output.reconstruction
        repaired = losses.repair_loss(output.repaired, good_features[2:])
        segmented = losses.segmentation_loss(
            output.map_logits, mask, gamma=settings.focal_gamma, balance=settings.focal_balance
        )
        found = {"fea_rep": weights.fea_rep * repaired, "seg": weights.seg * segmented}
        taught = {} if distiller is None else distiller.phase_2_losses(defective, output.map_logits)
    rebuilt = rebuilt.float()
    total = {"rec": weights.rec * losses.reconstruction_loss(rebuilt, good)}
    if vgg is not None:
        total["per"] = weights.per * vgg.loss(rebuilt, good)
    return total | found | taught


def nearest_to_others(descriptors: npt.NDArray[np.float64]) -> int:
    """Return the row of descriptors [n, d] nearest the mean of the other rows; the first of equals.

    **Choice** (the paper does not say which image becomes the reference). With one row, that one. Columns are divided
    by their standard deviation, so that no level dominates; constant ones don't count.
    """
    count = len(descriptors)
    spread = descriptors.std(axis=0)
    used = descriptors[:, spread > 1e-12] / spread[spread > 1e-12]
    if count == 1 or used.shape[1] == 0:
        return 0
    mean_of_others = (used.sum(axis=0) - used) / (count - 1)
    return int(np.argmin(np.square(used - mean_of_others).sum(axis=1)))


@torch.no_grad()
def describe_images(model: NDPNet, images: GoodImages, device: str = "cpu") -> npt.NDArray[np.float64]:
    """Return the channel means of levels 3 to 5 of images [h, w, c], by the encoder in eval mode: float64 [n, d]."""
    was_training = model.encoder.training
    model.encoder.eval()
    rows = []
    for index in range(len(images)):
        features = model.encoder(torch.from_numpy(to_network([images[index]])).to(device))
        means = [features[level - 1].mean(dim=(2, 3))[0] for level in REPAIRED_LEVELS]
        rows.append(torch.cat(means).double().cpu().numpy())
    model.encoder.train(was_training)
    return np.stack(rows)
