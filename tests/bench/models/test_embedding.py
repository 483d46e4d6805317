"""Embedding-based reference architectures: their parts against definitions, their sizes against their sources."""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from numpy.typing import NDArray
from scipy.spatial import distance
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models import banks
from ndp_rt.bench.models.banks import Bank, GaussianSmoothing, draw_precisions, measure_mahalanobis
from ndp_rt.bench.models.dfr import Dfr
from ndp_rt.bench.models.efficientad_s import EfficientAdS
from ndp_rt.bench.models.gcpf import Gcpf
from ndp_rt.bench.models.mb_pfm import MbPfm
from ndp_rt.bench.models.method import build_seeded, fit_image, fit_map
from ndp_rt.bench.models.mkd import Mkd, open_morphologically
from ndp_rt.bench.models.padim import Padim
from ndp_rt.bench.models.patch_svdd import PatchBank, PatchSvdd
from ndp_rt.bench.models.patchcore import LocallyAwareFeatures, PatchCore
from ndp_rt.bench.models.spade import Gallery, Spade
from ndp_rt.bench.models.stpm import Stpm
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch

CROP = {"input_px": 144, "crop_px": 128}
# Pages with small banks, on small squares; EfficientAD's decoder has its sides written into it.
SMALL: dict[str, Callable[[], nn.Module]] = {
    "mkd": lambda: Mkd(input_px=64),
    "spade": lambda: Spade(**CROP, image_count=6, neighbour_count=3),
    "dfr": lambda: Dfr(input_px=64, latent=8),
    "gcpf": lambda: Gcpf(**CROP, cluster_count=3),
    "patch-svdd": lambda: PatchSvdd(input_px=96, image_count=3),
    "mb-pfm": lambda: MbPfm(input_px=64, latents=(8, 8, 8)),
    "padim": lambda: Padim(**CROP, channel_count=20),
    "stpm": lambda: Stpm(input_px=64),
    "patchcore": lambda: PatchCore(**CROP, image_count=4),
    "efficientad-s": EfficientAdS,
}


@cache
def build_small(name: str) -> nn.Module:
    return build_seeded(SMALL[name])


def make_image(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.random(shape, np.float32))


def draw(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32)


def make_bank(values: NDArray[np.float32]) -> Bank:
    bank = Bank(*values.shape)
    bank.features = torch.from_numpy(values)
    bank.squared_norms = torch.from_numpy(np.square(values).sum(-1))
    return bank


def run(model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        anomaly_map, score = model(image)
    return anomaly_map, score


def measure_all_distances(queries: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float64]:
    gaps = queries[:, None].astype(np.float64) - bank[None]
    distances: NDArray[np.float64] = np.sqrt(np.square(gaps).sum(2))
    return distances


# ---- every page, small ----


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("name", SMALL)
def test_pages_map_each_image_of_any_size_as_if_alone(name: str, rng: np.random.Generator) -> None:
    model, images = build_small(name), make_image(rng, 2, 3, 75, 90)
    together, alone = run(model, images), run(model, images[1:])
    for n, (anomaly_map, score) in ((2, together), (1, alone)):
        assert anomaly_map.shape == (n, 1, 75, 90)
        assert score.shape == (n,)
        assert anomaly_map.dtype == score.dtype == torch.float32
        assert bool(anomaly_map.isfinite().all()) and bool(score.isfinite().all())
    assert float(alone[0].std()) > 1e-3 * float(alone[0].abs().mean())
    assert_close(together[0][1:], alone[0], "page", "float32")
    assert_close(together[1][1:], alone[1], "page", "float32")


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("name", SMALL)
def test_builds_are_the_same(name: str, rng: np.random.Generator) -> None:
    state = torch.random.get_rng_state()
    again = build_seeded(SMALL[name])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not again.training
    first = build_small(name).state_dict()
    assert all(torch.equal(first[key], tensor) for key, tensor in again.state_dict().items())


# ---- parts against their definitions ----


@pytest.mark.parametrize(("queries", "rows"), [(1, 1), (7, 5), (33, 1000)])
@pytest.mark.parametrize("limit", [1, 700, banks.MAX_CHUNK_ELEMENTS])
def test_nearest_distances_are_the_least(
    queries: int, rows: int, limit: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(banks, "MAX_CHUNK_ELEMENTS", limit)
    a, b = draw(rng, queries, 24), draw(rng, rows, 24)
    bank = make_bank(b)
    wanted = measure_all_distances(a, b)
    found = bank.find_nearest_distances(torch.from_numpy(a))
    assert_close(found, wanted.min(1), "distance", "float32")
    assert_close(bank.measure_distances(torch.from_numpy(a)), wanted, "distance", "float32")


def test_distance_to_a_row_itself_is_not_nan() -> None:
    bank = make_bank(np.full((3, 100), 1e3, np.float32))
    assert bool(bank.find_nearest_distances(bank.features).isfinite().all())


def test_mahalanobis_is_scipys(rng: np.random.Generator) -> None:
    torch.manual_seed(1)
    deltas, precisions = torch.from_numpy(draw(rng, 20, 3, 12)), draw_precisions(20, 12)
    wanted = [
        [distance.mahalanobis(one, np.zeros(12), precision) for one in some]
        for some, precision in zip(deltas.double().numpy(), precisions.double().numpy(), strict=True)
    ]
    assert_close(measure_mahalanobis(deltas, precisions), wanted, "mahalanobis", "float32")


def test_precisions_are_positive_definite() -> None:
    precisions = draw_precisions(35, 8)
    assert precisions.shape == (35, 8, 8)
    assert precisions.untyped_storage().nbytes() == 35 * 8 * 8 * 4
    assert float(torch.linalg.eigvalsh(precisions).min()) > 0.0


def test_smoothing_is_scipys(rng: np.random.Generator) -> None:
    scores = rng.random((2, 1, 33, 40), np.float32)
    wanted = [[scipy.ndimage.gaussian_filter(one[0].astype(np.float64), 4.0, mode="mirror")] for one in scores]
    assert_close(GaussianSmoothing()(torch.from_numpy(scores)), wanted, "gaussian", "float32")


def test_opening_is_scipys_with_a_cross(rng: np.random.Generator) -> None:
    scores = rng.random((1, 1, 20, 23), np.float32)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    wanted = scipy.ndimage.grey_opening(scores[0, 0], footprint=cross)
    found = open_morphologically(torch.from_numpy(scores))[0, 0].numpy()
    np.testing.assert_array_equal(found[2:-2, 2:-2], wanted[2:-2, 2:-2])


def test_crop_is_the_centre_and_comes_back_in_place(rng: np.random.Generator) -> None:
    image = make_image(rng, 1, 3, 16, 16)
    assert torch.equal(fit_image(image, 16, 12), image[:, :, 2:14, 2:14])
    whole = fit_map(image[:, :1, 2:14, 2:14], image, 2)
    assert torch.equal(whole[:, :, 2:14, 2:14], image[:, :1, 2:14, 2:14])
    assert torch.equal(whole[0, 0, 0, 2:14], image[0, 0, 2, 2:14])


def test_spade_searches_the_nearest_images_alone(rng: np.random.Generator) -> None:
    gallery = Gallery(5, 6, 4)
    features, nearest = draw(rng, 2, 4, 2, 3), np.array([[4, 1], [0, 2]])
    found = gallery(torch.from_numpy(features), torch.from_numpy(nearest))
    for one, images, got in zip(features, nearest, found, strict=True):
        bank = gallery.features[torch.from_numpy(images)].reshape(-1, 4).numpy()
        wanted = measure_all_distances(one.reshape(4, -1).T, bank).min(1).reshape(1, 2, 3)
        assert_close(got, wanted, "distance", "float32")


def test_patchcore_features_are_those_of_the_repositorys_poolings(rng: np.random.Generator) -> None:
    first, second = (torch.from_numpy(draw(rng, *shape)) for shape in ((2, 512, 6, 6), (2, 1024, 3, 3)))
    levels = []
    for level in (first, second):
        n, c, h, w = level.shape
        patches = functional.unfold(level, 3, padding=1).view(n, c * 9, h, w)
        patches = functional.interpolate(patches, size=(6, 6), mode="bilinear", align_corners=False)
        levels.append(functional.adaptive_avg_pool1d(patches.permute(0, 2, 3, 1).reshape(n * 36, 1, c * 9), 1024))
    wanted = functional.adaptive_avg_pool1d(torch.cat(levels, 2), 1024).view(2, 6, 6, 1024).permute(0, 3, 1, 2)
    assert_close(LocallyAwareFeatures(512)(first, second), wanted, "rewrite", "float32")


def test_patchcore_scores_are_weighed_by_their_neighbourhood(rng: np.random.Generator) -> None:
    patches, coreset = draw(rng, 2, 5, 6), draw(rng, 40, 6)
    part = SimpleNamespace(coreset=make_bank(coreset), neighbour_count=4)
    distances = np.stack([measure_all_distances(one, coreset) for one in patches])  # [n, p, r]
    least = torch.from_numpy(distances.min(2)).float()
    found = PatchCore.weigh(part, torch.from_numpy(patches), least)  # type: ignore[arg-type]
    wanted = []
    for one in distances:
        patch = one.min(1).argmax()
        neighbour = one[patch].argmin()
        around = np.argsort(measure_all_distances(coreset[neighbour : neighbour + 1], coreset)[0])[:4]
        weight = 1.0 - np.exp(one[patch, neighbour]) / np.exp(one[patch, around]).sum()
        wanted.append(weight * one[patch, neighbour])
    assert_close(found, wanted, "page", "float32")


def test_patch_svdd_encodes_as_patch_by_patch(rng: np.random.Generator) -> None:
    model: Any = build_small("patch-svdd")
    image = make_image(rng, 1, 3, 96, 96)
    with torch.inference_mode():
        dense = model.small(image)
        large = model.large(dense)
        for i, j in ((0, 0), (3, 16), (7, 5)):
            patch = image[:, :, 4 * i : 4 * i + 32, 4 * j : 4 * j + 32]
            assert_close(dense[:, :, ::2, ::2][:, :, i, j], model.small(patch)[:, :, 0, 0], "rewrite", "float32")
        for i, j in ((0, 0), (1, 2), (2, 1)):
            patch = image[:, :, 16 * i : 16 * i + 64, 16 * j : 16 * j + 64]
            quarters = [model.small(patch[:, :, y : y + 32, x : x + 32]) for y in (0, 32) for x in (0, 32)]
            square = torch.cat((torch.cat(quarters[:2], 3), torch.cat(quarters[2:], 3)), 2)
            hidden = functional.conv2d(square, model.large.conv1.weight, model.large.conv1.bias)
            wanted = torch.tanh(model.large.conv2(functional.leaky_relu(hidden, 0.1)))
            assert_close(large[:, :, i, j], wanted[:, :, 0, 0], "rewrite", "float32")
    assert dense[:, :, ::2, ::2].shape[-1] == (96 - 32) // 4 + 1
    assert large.shape[-1] == (96 - 64) // 16 + 1


def test_patch_svdd_averages_over_the_patches_that_cover_a_pixel(rng: np.random.Generator) -> None:
    bank = PatchBank(2, 16, 8, 4)
    features = draw(rng, 1, 64, 3, 3)
    distances = measure_all_distances(features[0].reshape(64, -1).T, bank.features.numpy()).min(1).reshape(3, 3)
    sums, counts = np.zeros((16, 16)), np.zeros((16, 16))
    for i in range(3):
        for j in range(3):
            sums[4 * i : 4 * i + 8, 4 * j : 4 * j + 8] += distances[i, j]
            counts[4 * i : 4 * i + 8, 4 * j : 4 * j + 8] += 1
    assert_close(bank(torch.from_numpy(features))[0, 0], sums / counts, "distance", "float32")


def test_mkd_leaves_no_gradients_behind(rng: np.random.Generator) -> None:
    model, image = build_small("mkd"), make_image(rng, 1, 3, 64, 64)
    first = run(model, image)
    assert all(torch.equal(a, b) for a, b in zip(first, run(model, image), strict=True))
    assert not first[0].requires_grad and not first[1].requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        assert torch.equal(model(image)[0], first[0])
