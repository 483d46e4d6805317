"""NDP-Net cut into the graphs of a bundle, plain or rewritten: encoder, decoder with FFM, head, segmentation, fused."""

from typing import cast

import torch
from torch import Tensor, nn

from ndp_rt.export.models.family import Stage
from ndp_rt.export.models.ndpnet.network import (
    DSM,
    FFM,
    MSDSM,
    PATCH_SIZES,
    REPAIRED_LEVELS,
    Decoder,
    NDPNet,
    fuse_maps,
    level_channels,
)
from ndp_rt.export.models.ndpnet.rewrites import (
    BlockConv,
    MatrixFuseMaps,
    PatchFilters,
    SplitConv,
    block_last_conv,
    ffm_softmax_differences,
    merge_upsample_conv,
    rbfrm_as_convolution,
    split_concat_conv,
    sum_of_squares,
)
from ndp_rt.export.onnx.batch_norm import fold_batch_norms
from ndp_rt.export.onnx.graphs import round_to_half
from ndp_rt.program.tensors import TensorSpec


class Levels(nn.Module):
    """encoder.onnx and head.onnx: an image to its features f1..f5, a reconstruction to g1..g3."""

    def __init__(self, encoder: nn.Module, count: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.count = count

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder(image, self.count))  # [n, c_l, h / 2^l, w / 2^l], l from 0


class DecoderStage(nn.Module):
    """decoder.onnx: features and their repaired forms, level by level, to the reconstruction."""

    def __init__(self, ffm: nn.ModuleDict, decoder: nn.Module) -> None:
        super().__init__()
        self.ffm = ffm
        self.decoder = decoder

    def forward(
        self,
        f3: Tensor,
        f4: Tensor,
        f5: Tensor,
        r3k2: Tensor,
        r3k4: Tensor,
        r4k2: Tensor,
        r4k4: Tensor,
        r5k2: Tensor,
        r5k4: Tensor,
    ) -> Tensor:
        levels = ((f3, r3k2, r3k4), (f4, r4k2, r4k4), (f5, r5k2, r5k4))
        fused = [self.ffm[str(level)](*x) for level, x in zip(REPAIRED_LEVELS, levels, strict=True)]
        return cast(Tensor, self.decoder(*fused))  # [n, 3, h, w]


class PlainSegmentation(nn.Module):
    """segmentation.onnx, plain: MSDSM, sigmoid and eq. 11."""

    def __init__(self, msdsm: MSDSM) -> None:
        super().__init__()
        self.msdsm = msdsm

    def forward(self, f1: Tensor, f2: Tensor, f3: Tensor, g1: Tensor, g2: Tensor, g3: Tensor) -> Tensor:
        logits = self.msdsm((f1, f2, f3), (g1, g2, g3))
        return fuse_maps([torch.sigmoid(x) for x in logits])  # [n, 1, h, w]


class RewrittenDecoder(nn.Module):
    """The decoder with merged upsampling, split skips and a blocked last convolution."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        folded = cast(Decoder, fold_batch_norms(decoder))
        ups = {name: _conv_of(getattr(folded, name), 1) for name in ("up4", "up3", "up2", "up1")}
        joins = {name: _conv_of(getattr(folded, name)) for name in ("join4", "join3")}
        self.up4, self.up3, self.up2, self.up1 = (merge_upsample_conv(conv) for conv in ups.values())
        self.join4: SplitConv = split_concat_conv(joins["join4"], ups["up4"].out_channels)
        self.join3: SplitConv = split_concat_conv(joins["join3"], ups["up3"].out_channels)
        self.last: BlockConv = block_last_conv(folded.last)

    def forward(self, f3: Tensor, f4: Tensor, f5: Tensor) -> Tensor:
        x = torch.relu(self.join4(torch.relu(self.up4(f5)), f4))  # [n, 8w, h/8, w/8]
        x = torch.relu(self.join3(torch.relu(self.up3(x)), f3))  # [n, 4w, h/4, w/4]
        x = torch.relu(self.up1(torch.relu(self.up2(x))))  # [n, w, h, w]
        return cast(Tensor, self.last(x))  # [n, 3, h, w]


class RewrittenDSM(nn.Module):
    """One level's comparison without a concatenation."""

    def __init__(self, dsm: DSM) -> None:
        super().__init__()
        folded = cast(DSM, fold_batch_norms(dsm))
        compare = _conv_of(folded.compare)
        self.compare = split_concat_conv(compare, compare.in_channels // 2)
        self.narrow = folded.narrow
        self.last = folded.last

    def forward(self, features: Tensor, rebuilt: Tensor) -> Tensor:
        x = self.narrow(torch.relu(self.compare(features, rebuilt)))  # [n, c/2, h, w]
        return torch.sigmoid(self.last(x))  # AM_l: [n, 1, h, w]


class RewrittenSegmentation(nn.Module):
    """segmentation.onnx, rewritten."""

    def __init__(self, msdsm: MSDSM, height_px: int, width_px: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(RewrittenDSM(cast(DSM, level)) for level in msdsm.levels)
        self.fuse_maps = MatrixFuseMaps(height_px, width_px)

    def forward(self, f1: Tensor, f2: Tensor, f3: Tensor, g1: Tensor, g2: Tensor, g3: Tensor) -> Tensor:
        pairs = zip(self.levels, (f1, f2, f3), (g1, g2, g3), strict=True)
        return cast(Tensor, self.fuse_maps(*(level(f, g) for level, f, g in pairs)))  # [n, 1, h, w]


class RewrittenNet(nn.Module):
    """fused.onnx, rewritten: the stages in one graph, RBFRM between them as convolutions with a fixed reference."""

    reference_3: Tensor
    reference_4: Tensor
    reference_5: Tensor

    def __init__(self, model: NDPNet) -> None:
        super().__init__()
        height_px, width_px = input_size(model)
        self.encoder = fold_batch_norms(model.encoder)
        self.ffm = nn.ModuleDict({name: ffm_softmax_differences(cast(FFM, ffm)) for name, ffm in model.ffm.items()})
        self.decoder = RewrittenDecoder(model.decoder)
        self.segmentation = RewrittenSegmentation(model.msdsm, height_px, width_px)
        self.filters = nn.ModuleDict()
        for level in REPAIRED_LEVELS:
            reference = getattr(model, f"reference_{level}")
            self.register_buffer(f"reference_{level}", reference.clone())
            for size in PATCH_SIZES:
                _, c, h, w = reference.shape
                self.filters[f"{level}k{size}"] = PatchFilters(c, h, w, size)

    def repair(self, features: list[Tensor]) -> list[Tensor]:
        """Return F_out of levels 3 to 5 from F of levels 1 to 5."""
        repaired = []
        for level in REPAIRED_LEVELS:
            f, reference = features[level - 1], getattr(self, f"reference_{level}")
            squares = sum_of_squares(f)  # [n, 1, h_l, w_l]
            rebuilt = []
            for size in PATCH_SIZES:
                raw, unit = self.filters[f"{level}k{size}"](reference)  # [M, c_l, K, K] each
                rebuilt.append(rbfrm_as_convolution(f, squares, raw, unit, size))  # [n, c_l, h_l, w_l]
            repaired.append(self.ffm[str(level)](f, *rebuilt))
        return repaired

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return AM_final before smoothing [n, 1, h, w] and the reconstruction [n, 3, h, w] of image [n, 3, h, w]."""
        features = self.encoder(image)
        reconstruction = self.decoder(*self.repair(features))
        rebuilt = self.encoder(reconstruction, 3)
        return self.segmentation(*features[:3], *rebuilt), reconstruction


def build_stages(model: NDPNet, *, rewrite: bool, weights: str = "fp32") -> dict[str, Stage]:
    """Return the five graphs of `model` by name; they share weights among themselves, none with `model`.

    Args:
        model: in eval mode.
        rewrite: apply the exact rewrites; without it the graphs are the model's own, with batch norms folded.
        weights: "fp16" rounds what the bundle stores in half precision: every tensor of two axes or more, that is all
            but biases, as it is after the rewrites.
    """
    net: NDPNet | RewrittenNet
    if rewrite:
        net = RewrittenNet(model).eval()
        decoder, segmentation = DecoderStage(net.ffm, net.decoder), cast(nn.Module, net.segmentation)
    else:
        # Exporters and runtimes fold batch norms by themselves, so the plain graph has them folded too.
        net = cast(NDPNet, fold_batch_norms(model))
        decoder, segmentation = DecoderStage(net.ffm, net.decoder), PlainSegmentation(net.msdsm)
    if weights == "fp16":
        round_to_half(net)
    image, result, features, repaired, rebuilt = _describe_tensors(model)
    image_map = TensorSpec(name="map", shape=(None, 1, *image.shape[2:]))
    stages = (
        Stage(name="encoder", module=Levels(net.encoder, 5), inputs=(image,), outputs=features),
        Stage(name="decoder", module=decoder, inputs=(*features[2:], *repaired), outputs=(result,)),
        Stage(name="head", module=Levels(net.encoder, 3), inputs=(result,), outputs=rebuilt),
        Stage(name="segmentation", module=segmentation, inputs=(*features[:3], *rebuilt), outputs=(image_map,)),
        Stage(name="fused", module=net, inputs=(image,), outputs=(image_map, result)),
    )
    for stage in stages:
        stage.module.eval()
    return {stage.name: stage for stage in stages}


def input_size(model: NDPNet) -> tuple[int, int]:
    """Return the height and width in pixels of the network's input."""
    h, w = cast(Tensor, model.reference_3).shape[2:]
    return int(h) * 4, int(w) * 4  # level 3 is a quarter of the input


def _describe_tensors(
    model: NDPNet,
) -> tuple[TensorSpec, TensorSpec, tuple[TensorSpec, ...], tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the specs of image, reconstruction, f1..f5, r3k2..r5k4 and g1..g3."""
    height_px, width_px = input_size(model)
    channels = level_channels(model.encoder.width)
    shapes = [(None, c, height_px >> level, width_px >> level) for level, c in enumerate(channels)]
    features = tuple(TensorSpec(name=f"f{index + 1}", shape=shape) for index, shape in enumerate(shapes))
    rebuilt = tuple(TensorSpec(name=f"g{index + 1}", shape=shape) for index, shape in enumerate(shapes[:3]))
    repaired = tuple(
        TensorSpec(name=f"r{level}k{size}", shape=shapes[level - 1])
        for level in REPAIRED_LEVELS
        for size in PATCH_SIZES
    )
    image = TensorSpec(name="image", shape=(None, 3, height_px, width_px))
    result = TensorSpec(name="reconstruction", shape=image.shape)
    return image, result, features, repaired, rebuilt


def _conv_of(sequence: nn.Sequential, index: int = 0) -> nn.Conv2d:
    """Return the convolution that a block begins with; `index` steps past what precedes the block."""
    step = sequence[index]
    conv = step[0] if isinstance(step, nn.Sequential) else step
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"expected a convolution, found {type(conv).__name__}")
    return conv
