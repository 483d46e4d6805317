"""The pages of the methods that reconstruct: their modules' contract, their sums, and what their maps respond to."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ndp_rt.bench.models import find_architecture
from ndp_rt.bench.models.ae_ssim import WINDOW_PX, list_offsets, measure_ssim
from ndp_rt.bench.models.anogan import STEP_COUNT
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch

NAMES = ("ae-ssim", "f-anogan", "anogan", "ganomaly", "vae", "trustmae", "riad")
WIDE = ("trustmae", "riad")
SIZES = ((1, 256, 256), (2, 150, 211))


def build(name: str) -> Any:
    return find_architecture(name).build()


def lighten(name: str, model: Any) -> Any:
    """Leave out what takes long and is the same again: steps of AnoGAN, masks of RIAD, most pixels of wide layers."""
    if name == "anogan":
        model.step_count = 2
    if name in WIDE:
        model.input_px = find_side(name)
    if name == "riad":
        model.masks = model.masks[:1, ..., : model.input_px, : model.input_px]
    return model


def find_side(name: str) -> int:
    """Return the side of the square that a lightened page's network sees."""
    return 64 if name in ("anogan", "f-anogan", *WIDE) else 256


@pytest.fixture(scope="module", params=NAMES)
def built(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    yield request.param, lighten(request.param, build(request.param))


def draw_images(rng: np.random.Generator, n: int, h: int, w: int) -> Tensor:
    return torch.from_numpy(rng.random((n, 3, h, w), dtype=np.float32))


def digest(model: nn.Module) -> str:
    """Return a digest of every name and value of the state dict, so that two models need not be held at once."""
    whole = hashlib.blake2b()
    for name, tensor in model.state_dict().items():
        whole.update(name.encode())
        whole.update(tensor.contiguous().numpy().data)
    return whole.hexdigest()


@pytest.mark.nightly(but=1)
def test_a_second_build_is_the_same_and_leaves_pytorchs_generator_alone(
    built: tuple[str, Any], rng: np.random.Generator
) -> None:
    name, model = built
    torch.manual_seed(int(rng.integers(1000)))
    before = torch.get_rng_state()
    again = lighten(name, build(name))
    assert torch.equal(torch.get_rng_state(), before)
    assert digest(again) == digest(model)
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    image = draw_images(rng, 1, 64, 64)
    for first, second in zip(model(image), again(image), strict=True):
        assert torch.equal(first, second)


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize(("n", "h", "w"), SIZES)
def test_maps_have_the_images_size_and_inference_mode_changes_nothing(
    built: tuple[str, Any], rng: np.random.Generator, n: int, h: int, w: int
) -> None:
    _, model = built
    image = draw_images(rng, n, h, w)
    with torch.inference_mode():
        got_map, got_score = model(image)
    assert got_map.shape == (n, 1, h, w) and got_score.shape == (n,)
    assert got_map.dtype == got_score.dtype == torch.float32
    assert got_map.isfinite().all() and got_score.isfinite().all()
    if n == 1:
        with torch.no_grad():
            plain_map, plain_score = model(image)
        assert torch.equal(plain_map, got_map) and torch.equal(plain_score, got_score)
    assert got_map.std() > 1e-3, "the map is flat: the weights carry nothing through"


@pytest.mark.nightly(but=1)
def test_images_of_a_batch_do_not_touch_each_other(built: tuple[str, Any], rng: np.random.Generator) -> None:
    _, model = built
    images = draw_images(rng, 2, 64, 64)
    with torch.inference_mode():
        together, alone = model(images), model(images[1:])
    assert_close(together[0][1:], alone[0], "map", "float32")
    assert_close(together[1][1:] / alone[1], [1.0], "map", "float32")


class Answer(nn.Module):
    """Stands for a network: gives back one and the same image, whatever it gets."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image.clone()

    def forward(self, x: Tensor) -> Tensor:
        return self.image + 0 * x.mean()


def answer_with(name: str, model: Any, image: Tensor) -> None:
    """Let a page's network reconstruct `image`, 0 to 1, from anything."""
    signed = Answer(2 * image - 1)
    if name == "ae-ssim":
        grey = image.mean(dim=1, keepdim=True)
        model.rebuild = Answer(grey).forward  # a method: a module of its name would not hide it
    elif name in ("vae", "trustmae"):
        model.decoder = Answer(image)
    elif name == "ganomaly":
        model.decoder, model.second_encoder = signed, model.encoder
    elif name == "riad":
        model.unet = signed
    else:
        model.generator = signed


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_reconstruction_scores_nothing_and_a_spot_scores_where_it_is(
    name: str, rng: np.random.Generator
) -> None:
    model = lighten(name, build(name))
    side_px = find_side(name)
    image = 0.25 + 0.5 * draw_images(rng, 1, side_px, side_px)
    answer_with(name, model, image)
    with torch.inference_mode():
        anomaly_map, score = model(image)
    assert_close(anomaly_map, torch.zeros_like(anomaly_map), "map", "float32")
    assert_close(score, [0.0], "map", "float32")

    top, left, size = side_px // 4, side_px // 2, side_px // 8
    image[:, :, top : top + size, left : left + size] = 1.0
    with torch.inference_mode():
        anomaly_map, score = model(image)
    row, column = divmod(int(anomaly_map.argmax()), side_px)
    assert abs(row - top - size // 2) <= size and abs(column - left - size // 2) <= size
    assert score > 0.01


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("name", ["ae-ssim", "vae", "trustmae", "riad"])
def test_the_score_is_the_maps_largest_value(name: str, rng: np.random.Generator) -> None:
    model = lighten(name, build(name))
    with torch.inference_mode():
        anomaly_map, score = model(draw_images(rng, 2, find_side(name), find_side(name)))
    assert torch.equal(score, anomaly_map.amax(dim=(1, 2, 3)))


@pytest.mark.nightly
def test_all_but_anogan_are_one_graph() -> None:
    assert [name for name in NAMES if not find_architecture(name).is_graph] == ["anogan"]
    for name in ("vae", "f-anogan"):
        torch.export.export(build(name), (torch.zeros(1, 3, 64, 64),))


# What the sources' tables of layers come to, counted by hand: (side of the output, c_in, c_out, kernel). A transposed
# convolution counts every input value with every tap, so it stands with the side of its input.
Row = tuple[int, int, int, int]
AE_SSIM_DOWN: tuple[Row, ...] = (
    (64, 1, 32, 4),
    (32, 32, 32, 4),
    (32, 32, 32, 3),
    (16, 32, 64, 4),
    (16, 64, 64, 3),
    (8, 64, 128, 4),
    (8, 128, 64, 3),
    (8, 64, 32, 3),
    (1, 32, 100, 8),
)
AE_SSIM: tuple[Row, ...] = (*AE_SSIM_DOWN, *((side, c_out, c_in, kernel) for side, c_in, c_out, kernel in AE_SSIM_DOWN))
VAE_DOWN: tuple[Row, ...] = ((128, 3, 32, 4), (64, 32, 32, 4), (32, 32, 32, 4), *AE_SSIM_DOWN[2:])
VAE: tuple[Row, ...] = (
    *VAE_DOWN,
    (1, 32, 100, 8),
    *((side, c_out, c_in, kernel) for side, c_in, c_out, kernel in VAE_DOWN),
)
DCGAN: tuple[Row, ...] = ((32, 3, 64, 5), (16, 64, 128, 5), (8, 128, 256, 5), (4, 256, 512, 5))
RESIDUAL: tuple[Row, ...] = (
    *((64, 64, 64, 3), (64, 64, 128, 3), (32, 64, 128, 1)),
    *((32, 128, 128, 3), (32, 128, 256, 3), (16, 128, 256, 1)),
    *((16, 256, 256, 3), (16, 256, 512, 3), (8, 256, 512, 1)),
    *((8, 512, 512, 3), (8, 512, 512, 3), (4, 512, 512, 1)),
)
RESIDUAL_UP: tuple[Row, ...] = (
    *((8, 512, 512, 3), (8, 512, 512, 3), (8, 512, 512, 1)),
    *((16, 512, 256, 3), (16, 256, 256, 3), (16, 512, 256, 1)),
    *((32, 256, 128, 3), (32, 128, 128, 3), (32, 256, 128, 1)),
    *((64, 128, 64, 3), (64, 64, 64, 3), (64, 128, 64, 1)),
)
F_ANOGAN_ENCODER: tuple[Row, ...] = ((64, 3, 64, 3), *RESIDUAL)
F_ANOGAN_GENERATOR: tuple[Row, ...] = ((1, 128, 8192, 1), *RESIDUAL_UP, (64, 64, 3, 3))
GANOMALY: tuple[Row, ...] = (
    *((128, 3, 64, 4), (64, 64, 128, 4), (32, 128, 256, 4), (16, 256, 512, 4), (8, 512, 1024, 4), (4, 1024, 2048, 4)),
    (1, 2048, 100, 4),
)
VGG16: tuple[Row, ...] = (
    *((256, 3, 64, 3), (256, 64, 64, 3), (128, 64, 128, 3), (128, 128, 128, 3)),
    *((64, 128, 256, 3), (64, 256, 256, 3), (64, 256, 256, 3)),
    *((32, 256, 512, 3), (32, 512, 512, 3), (32, 512, 512, 3), *((16, 512, 512, 3),) * 3),
)
LPIPS: tuple[Row, ...] = ((256, 64, 1, 1), (128, 128, 1, 1), (64, 256, 1, 1), (32, 512, 1, 1), (16, 512, 1, 1))
TRUSTMAE: tuple[Row, ...] = ((128, 3, 64, 4), (64, 64, 128, 4), (32, 128, 256, 4), (16, 256, 256, 4))
RIAD: tuple[Row, ...] = (
    *((256, 3, 64, 3), (256, 64, 64, 3)),
    *((128, 64, 128, 4), (128, 128, 128, 3)),
    *((64, 128, 256, 4), (64, 256, 256, 3)),
    *((32, 256, 512, 4), (32, 512, 512, 3)),
    *((16, 512, 512, 4), (16, 512, 512, 3)),
    *((16, 512, 512, 4), (32, 1024, 512, 3), (32, 512, 512, 3)),
    *((32, 512, 256, 4), (64, 512, 256, 3), (64, 256, 256, 3)),
    *((64, 256, 128, 4), (128, 256, 128, 3), (128, 128, 128, 3)),
    *((128, 128, 64, 4), (256, 128, 64, 3), (256, 64, 64, 3)),
    (256, 64, 3, 3),
)


def sum_products(rows: tuple[Row, ...]) -> int:
    return sum(side**2 * c_in * c_out * kernel**2 for side, c_in, c_out, kernel in rows)


def sum_weights(rows: tuple[Row, ...]) -> int:
    return sum(c_in * c_out * kernel**2 for _, c_in, c_out, kernel in rows)


def count_products(model: Any, side_px: int) -> int:
    """Return the products of a forward, counted by PyTorch on tensors without values."""
    model = model.to("meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side_px, side_px, device="meta"))
    assert counter.get_total_flops() % 2 == 0
    return int(counter.get_total_flops()) // 2


# Four scales, image and reconstruction, two directions; once for each region side.
PREWITT = 4 * 2 * 2 * 9 * (256**2 + 128**2 + 64**2 + 32**2)
# 57 taps each way; the first pass keeps the columns of the padding, 28 px a side.
GAUSSIAN_7 = 57 * 256 * (256 + 2 * 28) + 57 * 256**2
PRODUCTS: dict[str, Callable[[], int]] = {
    "ae-ssim": lambda: 36 * sum_products(AE_SSIM),
    "f-anogan": lambda: sum_products((*F_ANOGAN_ENCODER * 3, *F_ANOGAN_GENERATOR)) + 8192 * 128,
    "ganomaly": lambda: 3 * sum_products(GANOMALY),
    "vae": lambda: sum_products(VAE),
    "trustmae": lambda: sum_products((*TRUSTMAE * 2, *VGG16 * 2, *LPIPS)) + 2 * 16**2 * 500 * 256,
    "riad": lambda: 12 * sum_products(RIAD) + PREWITT + GAUSSIAN_7,
}
WEIGHTS: dict[str, Callable[[], int]] = {
    "ae-ssim": lambda: sum_weights(AE_SSIM),
    "f-anogan": lambda: sum_weights((*F_ANOGAN_ENCODER * 2, *F_ANOGAN_GENERATOR)) + 8192 * 128,
    "ganomaly": lambda: 3 * sum_weights(GANOMALY),
    "vae": lambda: sum_weights(VAE),
    "trustmae": lambda: sum_weights((*TRUSTMAE * 2, *VGG16, *LPIPS)),
    "riad": lambda: sum_weights(RIAD),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", list(PRODUCTS))
def test_weights_and_sums_are_those_of_the_sources_layers(name: str) -> None:
    model = build(name)
    # Without biases and normalisation.
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == WEIGHTS[name]()
    assert count_products(model, model.input_px) == PRODUCTS[name]()


def test_ganomaly_has_the_144_million_weights_that_its_page_says() -> None:
    assert round(3 * sum_weights(GANOMALY) / 1e6) == 144


def test_ganomaly_at_64_px_costs_a_twenty_sixth_as_its_page_says() -> None:
    small = ((32, 3, 64, 4), (16, 64, 128, 4), (8, 128, 256, 4), (4, 256, 512, 4), (1, 512, 100, 4))
    assert round(sum_products(GANOMALY) / sum_products(small)) == 26


def test_patches_would_cost_the_vae_fifteen_times_as_much_as_its_page_says() -> None:
    colour, code = (64, 3, 32, 4), (1, 32, 100, 8)
    patch = 2 * sum_products((colour, *AE_SSIM_DOWN[1:])) + sum_products((code,))
    assert round(36 * patch / sum_products(VAE)) == 15


def test_vgg_has_the_share_of_trustmaes_sums_that_its_page_says() -> None:
    assert 0.9 < 2 * sum_products(VGG16) / PRODUCTS["trustmae"]() < 1.0


def test_anogan_steps_five_hundred_times_through_both_networks_and_back() -> None:
    model = build("anogan")
    assert model.step_count == STEP_COUNT == 500
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == 2 * sum_weights(DCGAN) + 100 * 8192
    forward = 2 * sum_products(DCGAN) + 100 * 8192
    counts = []
    for step_count in (0, 1, 3):
        model.step_count = step_count
        counts.append(count_products(model, 64))
    assert counts[0] == sum_products(DCGAN) + forward  # the image's features, and the loss after the last step
    assert [count - counts[0] for count in counts[1:]] == [2 * forward, 6 * forward]


@pytest.mark.nightly
def test_anogans_steps_lower_the_loss(rng: np.random.Generator) -> None:
    model = build("anogan")
    image = draw_images(rng, 1, 64, 64)
    losses = []
    for model.step_count in (0, 10):
        with torch.inference_mode():
            losses.append(float(model(image)[1]))
    assert losses[1] < losses[0]


def test_ae_ssims_patches_cover_the_image_every_thirty_pixels() -> None:
    assert list_offsets(256) == (0, 30, 60, 90, 120, 128)
    assert list_offsets(128) == (0,)


def test_ae_ssims_similarity_is_scikit_images(rng: np.random.Generator) -> None:
    p = draw_images(rng, 1, 40, 53)
    q = 0.6 * p + 0.4 * draw_images(rng, 1, 40, 53)
    got = measure_ssim(p, q)[0].permute(1, 2, 0).numpy()
    _, expected = structural_similarity(
        *(x[0].permute(1, 2, 0).double().numpy() for x in (p, q)),
        win_size=WINDOW_PX,
        data_range=1.0,
        channel_axis=2,
        use_sample_covariance=False,
        full=True,
    )
    inside = np.s_[WINDOW_PX // 2 : -(WINDOW_PX // 2), WINDOW_PX // 2 : -(WINDOW_PX // 2)]  # borders are ours
    assert_close(got[inside], expected[inside], "ssim", "float32")


def test_riads_sets_are_disjoint_cover_the_image_and_consist_of_whole_regions() -> None:
    masks = build("riad").masks
    assert masks.shape == (4, 3, 1, 256, 256)
    assert torch.equal(masks.sum(dim=1), torch.ones(4, 1, 256, 256))
    for sets, side_px in zip(masks, (2, 4, 8, 16), strict=True):
        regions = sets[:, 0].unfold(1, side_px, side_px).unfold(2, side_px, side_px)
        assert torch.equal(regions.amin(dim=(3, 4)), regions.amax(dim=(3, 4)))
        counts = regions[..., 0, 0].sum(dim=(1, 2))
        assert counts.max() - counts.min() <= 1
