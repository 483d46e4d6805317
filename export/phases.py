"""What one step of each phase computes: the network's pass and its weighted losses."""

import torch
from torch import Tensor, nn

from ndp_rt.export import losses
from ndp_rt.export.distil import Distiller
from ndp_rt.export.models.ndpnet import NDPNet
from ndp_rt.export.settings import TrainSettings
from ndp_rt.export.vgg import VGGFeatures


def start_phase(model: NDPNet, phase: int, settings: TrainSettings) -> list[nn.Parameter]:
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
    settings: TrainSettings,
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
    if phase == 1:
        rebuilt, found = _phase_1(model, good, defective, mask, settings, distiller)
    else:
        rebuilt, found = _phase_2(model, good, defective, mask, settings, distiller)
    weights = settings.weights
    total = {"rec": weights.rec * losses.reconstruction_loss(rebuilt, good)}
    if vgg is not None:
        total["per"] = weights.per * vgg.loss(rebuilt, good)
    return total | found


def _phase_1(
    model: NDPNet,
    good: Tensor,
    defective: Tensor,
    mask: Tensor,
    settings: TrainSettings,
    distiller: Distiller | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Encoder and decoder: rebuild the good image from its own features, perceive what a defect changes in them."""
    images = torch.cat([good, defective])
    features = model.encoder(images)  # levels 1 to 5: [2n, c_l, h_l, w_l]
    count = good.shape[0]
    good_features, defective_features = [f[:count] for f in features], [f[count:] for f in features]
    rebuilt = model.decoder(*good_features[2:]).float()
    perceived = losses.defect_perception_loss(good_features, defective_features, mask)
    taught = {} if distiller is None else distiller.phase_1_losses(images, features)
    return rebuilt, {"def_per": settings.weights.def_per * perceived, **taught}


def _phase_2(
    model: NDPNet,
    good: Tensor,
    defective: Tensor,
    mask: Tensor,
    settings: TrainSettings,
    distiller: Distiller | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """RBAM, decoder and MSDSM: rebuild the good image from the defective one, and find the defect."""
    with torch.no_grad():
        good_features = model.encoder(good)
    output = model.run(defective)
    repaired = losses.repair_loss(output.repaired, good_features[2:])
    segmented = losses.segmentation_loss(
        output.map_logits, mask, gamma=settings.focal_gamma, balance=settings.focal_balance
    )
    weights = settings.weights
    taught = {} if distiller is None else distiller.phase_2_losses(defective, output.map_logits)
    found = {"fea_rep": weights.fea_rep * repaired, "seg": weights.seg * segmented, **taught}
    return output.reconstruction.float(), found


def learning_rate(step: int, phase: int, settings: TrainSettings) -> float:
    """Return the learning rate of a step, counted from 0 in its phase."""
    if settings.schedule == "constant":
        return settings.learning_rate
    count = settings.phase_steps[phase - 1]
    rise = min(1.0, (step + 1) / max(1, min(100, count // 10)))
    cosine = 0.5 + 0.5 * float(torch.cos(torch.tensor(torch.pi * step / count, dtype=torch.float64)))
    return settings.learning_rate * rise * (0.01 + 0.99 * cosine)
