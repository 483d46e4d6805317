"""manifest.json holds a hash of itself; whatever else stands in it is read, or refused in a sentence."""

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import open_bundle, update_manifest
from ndp_rt.bundle.manifest import encode_manifest, read_manifest
from ndp_rt.bundle.write import add_command
from ndp_rt.errors import BundleError, InputError
from ndp_rt.options import Options, find_threshold
from tests.bricks import BRICKS

OTHER_KINDS: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, 10**400, 0.5, -1e30, 1e400, float("nan")),
    *("", "x", "\ud800", "../x", "x" * 300, [], [1], ["n", 2**63, 2**63], [[]], {}, {"a": 1}, {"": None}),
)
GONE = object()


def check_flip(folder: Path, content: bytes, bit: int) -> None:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    (folder / "manifest.json").write_bytes(changed)
    with pytest.raises(BundleError):
        read_manifest(folder)


@pytest.mark.parametrize("count", [300, pytest.param(10**9, marks=pytest.mark.nightly)])
def test_a_flipped_bit_anywhere_is_an_error(folder: Path, count: int) -> None:
    content = (folder / "manifest.json").read_bytes()
    hash_bits = range(8 * content.index(b'"sha256"'), 8 * (content.index(b'"sha256"') + 80))
    bits = {*hash_bits, *random.Random(0).sample(range(8 * len(content)), min(count, 8 * len(content)))}
    for bit in bits:
        check_flip(folder, content, bit)


def test_a_manifest_changed_by_hand_names_the_commands(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"value": 0.6', '"value": 8.6'))
    with pytest.raises(BundleError, match=r"it was changed, or is damaged\. .*set-threshold .*tiny\.ndp VALUE"):
        open_bundle(folder)


def test_the_hash_is_that_of_the_file_with_zeros_in_its_place(folder: Path) -> None:
    import hashlib

    content = (folder / "manifest.json").read_bytes()
    said: str = json.loads(content)["sha256"]
    assert hashlib.sha256(content.replace(said.encode(), b"0" * 64)).hexdigest() == said


def test_a_manifest_of_before_the_hash_opens_and_gets_one(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BRICKS, tmp_path / "bricks.ndp"))
    assert "sha256" not in json.loads((folder / "manifest.json").read_text())
    before = open_bundle(folder)
    update_manifest(before, lambda now: now)
    assert "sha256" in json.loads((folder / "manifest.json").read_text())
    assert open_bundle(folder).manifest == before.manifest


@pytest.mark.parametrize("version", [0, -1, 3])
def test_other_format_versions_are_refused(folder: Path, version: int) -> None:
    write(folder, {**read(folder), "format_version": version})
    with pytest.raises(BundleError, match=f"format_version up to 2, got {version}"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("thresholds", "fp32", "value"), 10**400, "value: expected a finite number"),
        (("thresholds", "fp32", "value"), float("inf"), "expected a finite number"),
        (("largest_score",), float("nan"), "largest_score: expected a finite number|not a number|NaN"),
        (("input", "height_px"), 2**63, "height_px: expected 1 to 16384, got 9223372036854775808"),
        (("provenance", "commands"), 5, "provenance.commands: expected a list of strings, got 5"),
        (("stages", "fused", "inputs", "image"), ["n", 3, 2**40, 2**40], "dims of 'image': expected"),
    ],
)
def test_values_out_of_range_are_refused(folder: Path, place: tuple[str, ...], value: object, message: str) -> None:
    document = read(folder)
    *path, last = place
    entry = document
    for name in path:
        entry = entry[name]
    entry[last] = value
    write(folder, document)
    with pytest.raises(BundleError, match=message):
        open_bundle(folder)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_not_finite_are_refused_wherever_they_are(folder: Path, number: str) -> None:
    """JSON has none of them, and a bundle that opened with one could not be written again."""
    document = read(folder)
    document["thresholds"]["fp32"]["false_alarm_rate_bound"] = "HERE"
    (folder / "manifest.json").write_text(json.dumps(document).replace('"HERE"', number))
    with pytest.raises(BundleError, match=f"expected a finite number, got {number}"):
        open_bundle(folder)


def read(folder: Path) -> Any:
    """Return a manifest as one of before there was a hash."""
    document = json.loads((folder / "manifest.json").read_text())
    del document["sha256"]
    return document


def write(folder: Path, document: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(document))


def change_everything(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield the document with each of its values replaced by one of another kind or left out, and where."""

    def walk(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        yield place
        for key, inner in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            yield from walk(inner, (*place, key))

    for place in list(walk(document, ())):
        for value in (*OTHER_KINDS, GONE):
            changed = json.loads(json.dumps(document))
            if not place:
                yield f"all = {value!r:.40}", None if value is GONE else value
                continue
            entry = changed
            for key in place[:-1]:
                entry = entry[key]
            if value is GONE:
                del entry[place[-1]]
            else:
                entry[place[-1]] = value
            yield f"{place} = {value!r:.40}", changed


@pytest.mark.parametrize("share", [0.01, pytest.param(1.0, marks=pytest.mark.nightly)])
def test_values_of_other_kinds_are_read_or_refused(folder: Path, share: float) -> None:
    """Whatever a manifest says, opening its bundle gives a bundle or a BundleError."""
    chosen, count = random.Random(1), 0
    for where, document in change_everything(read(folder)):
        if chosen.random() > share:
            continue
        count += 1
        write(folder, document)
        try:
            bundle = open_bundle(folder, verify=False)
            encode_manifest(replace(bundle.manifest, provenance=add_command(bundle.manifest.provenance, "x")))
            bundle.golden()
            bundle.calibration_images()
            find_threshold(bundle, Options(bundle=str(folder)))
            for name in bundle.manifest.assets:
                bundle.read_asset(name)
        except BundleError:
            continue
        except InputError as error:  # no threshold for fp32
            assert "has no threshold for fp32" in str(error), where
        except Exception as error:
            raise AssertionError(f"{where}: {error!r}") from error
    assert count > 100
