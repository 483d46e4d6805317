"""NDP-Net in plain PyTorch (Luo, Yao, Yu, IEEE TIM 2023, arXiv 2211.10060); equation numbers are the paper's.

Where the paper is silent, **choice** marks what this project decided. Shapes: n images, c channels, h rows, w columns;
`w` in a comment such as `8w` is the network's width (64 in preset `paper`, 16 in preset `edge`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

REPAIRED_LEVELS = (3, 4, 5)  # l1 = 3, l2 = 5
PATCH_SIZES = (2, 4)
MAP_WEIGHTS = (0.2, 0.2, 0.6)  # eq. 11, levels 1 to 3
NORM_EPS = 1e-6  # smallest |p_i|: a patch of zeros has cosine 0 with everything


def level_channels(width: int) -> tuple[int, int, int, int, int]:
    """Return the channels of levels 1 to 5 (**choice**: w, 2w, 4w, 8w, 8w)."""
    return width, 2 * width, 4 * width, 8 * width, 8 * width


def conv_block(c_in: int, c_out: int) -> nn.Sequential:
    """Return conv 3x3, batch norm, ReLU."""
    conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Encoder(nn.Module):
    """Features of five levels. **Choice**: level 1 keeps the input's size (AM_1 is not upsampled in eq. 11)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        c_in = (3, *level_channels(width)[:-1])
        self.levels = nn.ModuleList(
            nn.Sequential(conv_block(i, o), conv_block(o, o)) for i, o in zip(c_in, level_channels(width), strict=True)
        )

    def forward(self, image: Tensor, level_count: int = 5) -> list[Tensor]:
        features = []  # image: [n, 3, h, w]
        x = image
        for index, level in enumerate(self.levels[:level_count]):
            x = level(x if index == 0 else functional.max_pool2d(x, 2))  # [n, c_l, h / 2^l, w / 2^l], l from 0
            features.append(x)
        return features


def split_patches(features: Tensor, size: int) -> Tensor:
    """Cut [n, c, h, w] into non-overlapping patches: [n, (h/K)(w/K), c K K], K = size."""
    n, c, h, w = features.shape
    x = features.reshape(n, c, h // size, size, w // size, size)  # [n, c, h/K, K, w/K, K]
    return x.permute(0, 2, 4, 1, 3, 5).reshape(n, (h // size) * (w // size), c * size * size)


def join_patches(patches: Tensor, size: int, h: int, w: int) -> Tensor:
    """Put [n, (h/K)(w/K), c K K] back in place: [n, c, h, w]."""
    n, _, length = patches.shape
    x = patches.reshape(n, h // size, w // size, length // size**2, size, size)  # [n, h/K, w/K, c, K, K]
    return x.permute(0, 3, 1, 4, 2, 5).reshape(n, length // size**2, h, w)


def rbfrm(features: Tensor, reference: Tensor, size: int) -> Tensor:
    """Rebuild features [n, c, h, w] from the patches of reference [1, c, h', w'] (eq. 3-5); returns [n, c, h, w]."""
    b = split_patches(reference, size)  # [1, M, L]
    p = split_patches(features, size)  # [n, N, L]
    cosine = functional.normalize(p, dim=2, eps=NORM_EPS) @ functional.normalize(b, dim=2, eps=NORM_EPS).transpose(1, 2)
    repaired = torch.softmax(cosine, dim=2) @ b  # [n, N, M] @ [1, M, L] -> [n, N, L]
    return join_patches(repaired, size, features.shape[2], features.shape[3])


class FFM(nn.Module):
    """Fuses features with their two repaired forms by attention (eq. 6-8), m = 5.

    **Choice**: Z has w channels, which is the paper's 64 at its own width.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, width, 5, padding=2)
        self.attend_rep4 = nn.Conv2d(width, channels, 5, padding=2)
        self.attend_rep2 = nn.Conv2d(width, channels, 5, padding=2)
        self.attend_features = nn.Conv2d(width, channels, 5, padding=2)

    def forward(self, features: Tensor, rep2: Tensor, rep4: Tensor) -> Tensor:
        z = self.squeeze(features + rep2 + rep4)  # [n, w, h, w]
        logits = torch.stack([self.attend_rep4(z), self.attend_rep2(z), self.attend_features(z)])  # [3, n, c, h, w]
        attention = torch.softmax(logits, dim=0)
        return attention[0] * rep4 + attention[1] * rep2 + attention[2] * features  # [n, c, h, w]


def upsample_block(c_in: int, c_out: int) -> nn.Sequential:
    """Return nearest x2 upsampling, conv 3x3, batch norm, ReLU."""
    return nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), conv_block(c_in, c_out))


class Decoder(nn.Module):
    """Features of levels 3 to 5 to the reconstruction I_b.

    **Choice**: at each step upsampling and one block; where a skip joins, a second block after the concatenation.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = level_channels(width)
        self.up4 = upsample_block(c5, c4)
        self.join4 = conv_block(c4 + c4, c4)
        self.up3 = upsample_block(c4, c3)
        self.join3 = conv_block(c3 + c3, c3)
        self.up2 = upsample_block(c3, c2)
        self.up1 = upsample_block(c2, c1)
        self.last = nn.Conv2d(c1, 3, 3, padding=1)

    def forward(self, f3: Tensor, f4: Tensor, f5: Tensor) -> Tensor:
        x = self.join4(torch.cat([self.up4(f5), f4], dim=1))  # [n, 8w, h/8, w/8]
        x = self.join3(torch.cat([self.up3(x), f3], dim=1))  # [n, 4w, h/4, w/4]
        x = self.up1(self.up2(x))  # [n, w, h, w]
        return torch.sigmoid(self.last(x))  # [n, 3, h, w]


class DSM(nn.Module):
    """One level's comparison of input and reconstruction. **Choice**: conv 3x3 blocks 2c -> c -> c/2, conv 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.compare = conv_block(2 * channels, channels)
        self.narrow = conv_block(channels, channels // 2)
        self.last = nn.Conv2d(channels // 2, 1, 1)

    def forward(self, features: Tensor, rebuilt: Tensor) -> Tensor:
        x = self.compare(torch.cat([features, rebuilt], dim=1))  # [n, c, h, w]
        logits: Tensor = self.last(self.narrow(x))  # [n, c / 2, h, w] -> [n, 1, h, w]
        return logits


class MSDSM(nn.Module):
    """Compares input and reconstruction at levels 1 to 3 (eq. 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(DSM(c) for c in level_channels(width)[:3])

    def forward(self, features: Sequence[Tensor], rebuilt: Sequence[Tensor]) -> list[Tensor]:
        pairs = zip(self.levels, features, rebuilt, strict=True)
        return [level(f, g) for level, f, g in pairs]  # logits of AM_l: [n, 1, h / 2^l, w / 2^l], l from 0


def fuse_maps(maps: Sequence[Tensor]) -> Tensor:
    """Return AM_final [n, 1, h, w], not yet smoothed: the weighted sum of AM_1 to AM_3, upsampled (eq. 11)."""
    total = MAP_WEIGHTS[0] * maps[0]
    for weight, level_map in zip(MAP_WEIGHTS[1:], maps[1:], strict=True):
        total = total + weight * functional.interpolate(
            level_map, size=maps[0].shape[2:], mode="bilinear", align_corners=False
        )
    return total


class NDPOutput(NamedTuple):
    """Everything that a training step needs of one pass."""

    reconstruction: Tensor  # [n, 3, h, w], 0 to 1
    map_logits: list[Tensor]  # logits of AM_1 to AM_3
    repaired: list[Tensor]  # F_out of levels 3 to 5
    features: list[Tensor]  # F_l of the input, levels 1 to 5


class NDPNet(nn.Module):
    """The whole network, with the reference's features as buffers `reference_3` to `reference_5`."""

    def __init__(self, width: int, height_px: int = 256, width_px: int = 256) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        channels = level_channels(width)
        self.ffm = nn.ModuleDict({str(level): FFM(channels[level - 1], width) for level in REPAIRED_LEVELS})
        self.decoder = Decoder(width)
        self.msdsm = MSDSM(width)
        for level in REPAIRED_LEVELS:
            down = 2 ** (level - 1)
            shape = (1, channels[level - 1], height_px // down, width_px // down)
            self.register_buffer(f"reference_{level}", torch.zeros(shape))

    @torch.no_grad()
    def set_reference(self, image: Tensor) -> None:
        """Compute the reference's features from image [1, 3, h, w]; the encoder should be in eval mode."""
        features = self.encoder(image)
        for level in REPAIRED_LEVELS:
            getattr(self, f"reference_{level}").copy_(features[level - 1])

    def repair(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return F_out of levels 3 to 5 (RBAM: eq. 3-8) from F of levels 1 to 5."""
        repaired = []
        for level in REPAIRED_LEVELS:
            f, reference = features[level - 1], getattr(self, f"reference_{level}")
            rep2, rep4 = (rbfrm(f, reference, size) for size in PATCH_SIZES)  # [n, c_l, h_l, w_l] each
            repaired.append(self.ffm[str(level)](f, rep2, rep4))
        return repaired

    def run(self, image: Tensor) -> NDPOutput:
        """Return reconstruction, maps, repaired and own features of image [n, 3, h, w]."""
        features = self.encoder(image)
        repaired = self.repair(features)
        reconstruction = self.decoder(*repaired)
        rebuilt = self.encoder(reconstruction, level_count=3)
        return NDPOutput(reconstruction, self.msdsm(features[:3], rebuilt), repaired, features)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return AM_final before smoothing [n, 1, h, w] and the reconstruction [n, 3, h, w] of image [n, 3, h, w]."""
        output = self.run(image)
        return fuse_maps([torch.sigmoid(logits) for logits in output.map_logits]), output.reconstruction
