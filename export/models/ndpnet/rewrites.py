"""Exact rewrites of NDP-Net: each gives the same numbers, up to the order of float32 sums, for less work.

Every rewrite is a function of its own with a test that holds it equal to what it replaces; `graphs.py` applies them
all. What they bring together, against the plain export, is measured by `ndp-rt bench --against openvino-plain --plain
PLAIN.ndp`; `bench/results/README.md` names the records.
"""

import copy
import math
from typing import Any

import torch
from onnx import ModelProto, TensorProto
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.export.models.ndpnet.network import FFM, MAP_WEIGHTS, NORM_EPS
from ndp_rt.export.onnx.batch_norm import build_weights

# As the manifest lists them. The last one works on the ONNX graph.
REWRITES = (
    "fold_batch_norm",
    "merge_upsample_conv",
    "ffm_softmax_differences",
    "rbfrm_as_convolution",
    "split_concat_conv",
    "block_last_conv",
    "upsample_by_matrix",
    "duplicate_shared_biases",
)


def merge_upsample_conv(conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """Return the 4 x 4, stride 2 transposed convolution that equals nearest x2 upsampling followed by `conv` (3 x 3).

    Of the nine taps that meet the four copies of a pixel, those on the same pixel are summed: 16 products an output
    block instead of 36. At the borders both see zeros in the same places, so they agree there too.
    """
    o, i = conv.weight.shape[:2]
    with build_weights():
        merged = nn.ConvTranspose2d(i, o, 4, stride=2, padding=1, bias=conv.bias is not None)
        # Output row 2 r + a reads upsampled row 2 r + a + t - 1 at tap t, which is source row r + (a + t - 1) // 2;
        # a transposed convolution (stride 2, padding 1) reaches that row through its own tap a + 1 - 2 (row - r).
        sums = torch.zeros(4, 3, dtype=torch.float64)
        for a in range(2):
            for t in range(3):
                sums[a + 1 - 2 * ((a + t - 1) // 2), t] = 1.0
        taps = torch.einsum("yt,xs,oits->ioyx", sums, sums, conv.weight.double())
        merged.weight = nn.Parameter(taps.to(conv.weight.dtype).contiguous())
        if conv.bias is not None:
            merged.bias = nn.Parameter(conv.bias.clone())
    return merged


class DifferenceFFM(nn.Module):
    """FFM (eq. 6-8) with two attention convolutions instead of three; see `ffm_softmax_differences`."""

    def __init__(self, squeeze: nn.Conv2d, rep4_over_features: nn.Conv2d, rep2_over_features: nn.Conv2d) -> None:
        super().__init__()
        self.squeeze = squeeze
        self.rep4_over_features = rep4_over_features
        self.rep2_over_features = rep2_over_features

    def forward(self, features: Tensor, rep2: Tensor, rep4: Tensor) -> Tensor:
        z = self.squeeze(features + rep2 + rep4)  # [n, w, h, w]
        d4, d2 = self.rep4_over_features(z), self.rep2_over_features(z)  # [n, c, h, w] each
        # The largest of the three logits (the third is 0) is subtracted, so that no exp overflows.
        largest = torch.relu(torch.maximum(d4, d2))
        e4, e2, e0 = torch.exp(d4 - largest), torch.exp(d2 - largest), torch.exp(-largest)
        return (e4 * rep4 + e2 * rep2 + e0 * features) / (e4 + e2 + e0)  # [n, c, h, w]


def ffm_softmax_differences(ffm: FFM) -> DifferenceFFM:
    """Return an FFM whose softmax over three takes two convolutions: the differences to the third logit."""
    with build_weights():
        pair = []
        for attend in (ffm.attend_rep4, ffm.attend_rep2):
            difference = copy.deepcopy(attend)
            for name in ("weight", "bias"):
                ours, third = getattr(attend, name), getattr(ffm.attend_features, name)
                setattr(difference, name, nn.Parameter(ours - third))
            pair.append(difference)
        return DifferenceFFM(copy.deepcopy(ffm.squeeze), *pair)


class PatchFilters(nn.Module):
    """Cuts a reference of one fixed shape into filters; traced, it is constant arithmetic that compilers fold."""

    def __init__(self, channel_count: int, height: int, width: int, size: int) -> None:
        super().__init__()
        self.channel_count, self.height, self.width, self.size = channel_count, height, width, size

    @property
    def count(self) -> int:
        """How many patches the reference has."""
        return (self.height // self.size) * (self.width // self.size)

    def forward(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return the patches of reference [1, c, h, w] as they are and normalised: [M, c, K, K] each."""
        c, size = self.channel_count, self.size
        x = reference.reshape(c, self.height // size, size, self.width // size, size)  # [c, h/K, K, w/K, K]
        raw = x.permute(1, 3, 0, 2, 4).reshape(self.count, c, size, size)  # [M, c, K, K]
        norms = torch.sqrt((raw * raw).sum(dim=(1, 2, 3), keepdim=True))  # [M, 1, 1, 1]
        return raw, raw / torch.clamp(norms, min=NORM_EPS)


def sum_of_squares(features: Tensor) -> Tensor:
    """Return |F|^2 at each position: [n, 1, h, w] from [n, c, h, w]; both patch sizes need it."""
    return (features * features).sum(dim=1, keepdim=True)


def rbfrm_as_convolution(features: Tensor, squares: Tensor, raw: Tensor, unit: Tensor, size: int) -> Tensor:
    """Return RBFRM (eq. 3-5) as a strided convolution, exp, and a transposed convolution, divided at the end.

    The softmax's division commutes with the transposed convolution, so it is done on c channels, not on M. Its
    exponents are shifted by -ln M: sums stay near 1, in half precision too. They are bounded by 1, so there is
    no maximum to find.

    Args:
        features: [n, c, h, w]; h and w are multiples of K = size.
        squares: sum_of_squares(features), [n, 1, h, w].
        raw: the reference's patches, [M, c, K, K].
        unit: the same, normalised.
        size: K.
    """
    lengths = torch.sqrt(functional.avg_pool2d(squares, size) * float(size * size))  # |p_i|: [n, 1, h/K, w/K]
    cosine = functional.conv2d(features, unit, stride=size) / torch.clamp(lengths, min=NORM_EPS)  # [n, M, h/K, w/K]
    shares = torch.exp(cosine - math.log(int(raw.shape[0])))  # [n, M, h/K, w/K]
    inverse = 1.0 / shares.sum(dim=1, keepdim=True)  # [n, 1, h/K, w/K]
    rebuilt: Tensor = functional.conv_transpose2d(shares, raw, stride=size)  # [n, c, h, w]
    return rebuilt * functional.interpolate(inverse, scale_factor=float(size), mode="nearest")


class SplitConv(nn.Module):
    """A convolution over two inputs that are not concatenated; see `split_concat_conv`."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total: Tensor = self.first(a) + self.second(b)  # [n, c_out, h, w]
        return total


def split_concat_conv(conv: nn.Conv2d, first_count: int) -> SplitConv:
    """Return `conv` over a concatenation as the sum of two, over its first `first_count` channels and the rest.

    The work is the same, but no concatenated copy is written, and the first part does not wait for the second.
    """
    with build_weights():
        parts = []
        for weight, bias in ((conv.weight[:, :first_count], conv.bias), (conv.weight[:, first_count:], None)):
            o, i, kernel_h, kernel_w = weight.shape
            settings: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
            part = nn.Conv2d(i, o, (kernel_h, kernel_w), bias=bias is not None, **settings)
            part.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
            if bias is not None:
                part.bias = nn.Parameter(bias.clone())
            parts.append(part)
        return SplitConv(*parts)


class BlockConv(nn.Module):
    """A 3 x 3 convolution with few outputs, computed a 2 x 2 block of them at a time; see `block_last_conv`."""

    def __init__(self, blocks: nn.Conv2d) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(torch.sigmoid(self.blocks(x)), 2)  # [n, 4 o, h/2, w/2] to [n, o, h, w]


def block_last_conv(conv: nn.Conv2d) -> BlockConv:
    """Return `conv` (3 x 3, padding 1) with its sigmoid, as a 4 x 4, stride 2 convolution to 2 x 2 blocks of outputs.

    Three output channels fill three of a vector's 16 lanes, twelve fill twelve: 16 taps a block of four outputs
    instead of 36. Height and width have to be even.
    """
    o, i = conv.weight.shape[:2]
    with build_weights():
        blocks = nn.Conv2d(i, 4 * o, 4, stride=2, padding=1, bias=conv.bias is not None)
        weight = torch.zeros(o, 2, 2, i, 4, 4, dtype=conv.weight.dtype)
        for a in range(2):
            for b in range(2):
                weight[:, a, b, :, a : a + 3, b : b + 3] = conv.weight
        blocks.weight = nn.Parameter(weight.reshape(4 * o, i, 4, 4))
        if conv.bias is not None:
            blocks.bias = nn.Parameter(conv.bias.repeat_interleave(4))
    return BlockConv(blocks)


def upsample_by_matrix(source: int, target: int) -> Tensor:
    """Return the matrix [target, source] of bilinear upsampling along one axis (half-pixel centres, borders held)."""
    unit = torch.eye(source, dtype=torch.float64)[None]  # [1, source, source]
    matrix = functional.interpolate(unit, size=target, mode="linear", align_corners=False)[0]  # [source, target]
    return matrix.T.to(torch.float32).contiguous()


class MatrixFuseMaps(nn.Module):
    """AM_final (eq. 11) with each upsampling as two matrix products: R M C^T."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        for level in (2, 3):
            down = 2 ** (level - 1)
            self.register_buffer(f"rows_{level}", upsample_by_matrix(height // down, height))
            self.register_buffer(f"columns_{level}", upsample_by_matrix(width // down, width))

    def forward(self, am1: Tensor, am2: Tensor, am3: Tensor) -> Tensor:
        total = MAP_WEIGHTS[0] * am1  # [n, 1, h, w]
        for level, weight, level_map in ((2, MAP_WEIGHTS[1], am2), (3, MAP_WEIGHTS[2], am3)):
            rows, columns = getattr(self, f"rows_{level}"), getattr(self, f"columns_{level}")
            total = total + torch.matmul(torch.matmul(rows, weight * level_map), columns.T)  # [n, 1, h, w]
        return total


def duplicate_shared_biases(model: ModelProto) -> None:
    """Give every convolution a bias of its own, where the two passes of the encoder share one.

    OpenVINO 2026.4 fuses a bias, and the ReLU after it, into a convolution only if nothing else reads the bias.
    """
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, int] = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3 or node.input[2] not in initializers:
            continue
        name = node.input[2]
        readers[name] = readers.get(name, 0) + 1
        if readers[name] > 1:
            copy = TensorProto()
            copy.CopyFrom(initializers[name])
            copy.name = f"{name}_{readers[name]}"
            graph.initializer.append(copy)
            node.input[2] = copy.name
