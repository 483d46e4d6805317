"""The toy's network in PyTorch."""

import torch
from torch import Tensor, nn

CHANNELS = 8
STRIDE = 4


class Features(nn.Module):
    """Two convolutions of stride 2 with fixed random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1)
        with torch.no_grad():
            for conv in (self.first, self.second):
                conv.weight.mul_(4.0)  # so that features are about as large as what the head begins with

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(image))))  # [n, 8, h/4, w/4]


class Head(nn.Module):
    """Features and distances to the anomaly map, at the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(CHANNELS + 1, CHANNELS, 3, padding=1)
        self.enlarge = nn.ConvTranspose2d(CHANNELS, 1, STRIDE, stride=STRIDE)

    def find_logits(self, features: Tensor, distance: Tensor) -> Tensor:
        x = torch.relu(self.mix(torch.cat([features, distance], dim=1)))
        logits: Tensor = self.enlarge(x)
        return logits  # [n, 1, h, w]

    def forward(self, features: Tensor, distance: Tensor) -> Tensor:
        return torch.sigmoid(self.find_logits(features, distance))


def find_nearest(features: Tensor, patches: Tensor) -> Tensor:
    """Return the distance of each position of features [n, c, h, w] to the nearest of patches [m, c]: [n, 1, h, w]."""
    n, c, h, w = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(n * h * w, c)
    distances = torch.cdist(rows, patches, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.amin(dim=1).reshape(n, 1, h, w)


class ToyNet(nn.Module):
    """The whole network, with the memory as the buffer `patches`."""

    patches: Tensor

    def __init__(self, memory_count: int) -> None:
        super().__init__()
        self.features = Features().requires_grad_(False)
        self.head = Head()
        self.register_buffer("patches", torch.zeros(memory_count, CHANNELS))

    def forward(self, image: Tensor) -> tuple[Tensor]:
        features = self.features(image)
        return (self.head(features, find_nearest(features, self.patches)),)
