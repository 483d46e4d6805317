"""MB-PFM: features of two ImageNet ResNets are mapped onto one another, both ways; what does not map is the defect."""

from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import make_resnet34, make_resnet50
from ndp_rt.bench.models.method import Method, chain_points, fit_map
from ndp_rt.export.models.ndpnet.vgg import ImageNetNormalisation

INPUT_PX = 256
LATENT_CHANNELS = (200, 400, 900)


class BidirectionalMapping(nn.Module):
    """Maps features of one network to the other's and back; both ways share a code of `latent` channels."""

    def __init__(self, c_first: int, c_second: int, latent: int) -> None:
        super().__init__()
        inner_first, inner_second = c_first // 2 + latent, c_second // 2 + latent
        self.encode_first = chain_points((c_first, inner_first, 2 * latent), lambda count: False)
        self.encode_second = chain_points((c_second, inner_second, 2 * latent), lambda count: False)
        self.shared = nn.Conv2d(2 * latent, latent, 1)
        self.decode_first = chain_points((latent, 2 * latent, inner_first, c_first), lambda count: count == c_first)
        self.decode_second = chain_points((latent, 2 * latent, inner_second, c_second), lambda count: count == c_second)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the mean of both ways' squared errors, summed over channels [n, 1, h, w]."""
        second_got = self.decode_second(self.shared(self.encode_first(first)))
        first_got = self.decode_first(self.shared(self.encode_second(second)))
        errors: tuple[Tensor, Tensor] = (first - first_got, second - second_got)
        return (errors[0].square().sum(1, keepdim=True) + errors[1].square().sum(1, keepdim=True)) / 2


class MbPfm(Method):
    """Two ResNets, and a bidirectional mapping at each of three levels."""

    def __init__(self, *, input_px: int = INPUT_PX, latents: tuple[int, ...] = LATENT_CHANNELS) -> None:
        super().__init__(input_px)
        self.normalise = ImageNetNormalisation()
        self.first = make_resnet34(stages=3)
        self.second = make_resnet50(stages=3)
        channels = zip(self.first.channels, self.second.channels, latents, strict=True)
        self.mappings = nn.ModuleList(BidirectionalMapping(*counts) for counts in channels)

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        total = x.new_zeros(())
        for mapping, first, second in zip(self.mappings, self.first(x), self.second(x), strict=True):
            total = total + fit_map(mapping(functional.normalize(first), functional.normalize(second)), x)
        return total / len(self.mappings), None
