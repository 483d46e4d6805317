"""Bundles of format version 1 hold NDP-Net and no program: here its steps are written down, for them and for exports.

The encoder's features of levels 3 to 5 are rebuilt from the reference's patches of size 2 and 4 (RBFRM), the decoder
makes the reconstruction of them, and head and segmentation compare it with the image (NDP-Net, Fig. 2).
"""

from collections.abc import Mapping
from typing import Any, cast

from ndp_rt.errors import BundleError
from ndp_rt.program.json_reading import Json, take

REPAIRED_LEVELS = (3, 4, 5)
PATCH_SIZES = (2, 4)
SIZE_STEP_PX = 64  # level 5 is 1/16 of the input and is cut into patches of up to 4
LEVEL_MAPS = ("am1", "am2", "am3")  # what eq. 11 adds up
OUTPUTS = {"map": "map", "reconstruction": "reconstruction"}
REFERENCE_FILE = "reference.safetensors"


def upgrade(document: object) -> Json:
    """Return a manifest of format version 1 as one of version 2.

    Raises:
        BundleError: another family, stages without inputs and outputs, or a size that NDP-Net does not take.
    """
    stages = take(document, "stages", dict, "the manifest")
    family = take(take(document, "model", dict, "the manifest"), "family", str, "model")
    if family != "ndpnet":
        raise BundleError(f"manifest: expected the family 'ndpnet' in format version 1, got '{family}'. Update ndp-rt.")
    contract = take(document, "input", dict, "the manifest")
    for name in ("height_px", "width_px"):
        check_size(name, take(contract, name, int, "input"))
    return {**cast(Json, document), "format_version": 2, "largest_score": 1.0, **describe_ndpnet(stages)}


def check_size(name: str, size_px: int) -> None:
    """Check a side of NDP-Net's input.

    Raises:
        BundleError: it is no multiple of 64.
    """
    if size_px < SIZE_STEP_PX or size_px % SIZE_STEP_PX:
        raise BundleError(f"{name}: expected a multiple of {SIZE_STEP_PX}, got {size_px}.")


def describe_ndpnet(stages: Mapping[str, Any]) -> Json:
    """Return the entries `stages`, `assets`, `programs` and `decision` of NDP-Net's manifest.

    Args:
        stages: the entries of the graphs: encoder, decoder, head, segmentation and fused, or some of them.
    """
    found = {**stages, **_derive_stages(stages)}
    rbfrm = [
        {
            "op": "rbfrm",
            "params": {"patch_size": size},
            "reads": [f"f{level}", f"reference.f{level}"],
            "writes": [f"r{level}k{size}"],
        }
        for level in REPAIRED_LEVELS
        for size in PATCH_SIZES
    ]
    fuse: Json = {"op": "fuse_maps", "reads": list(LEVEL_MAPS), "writes": ["map"]}
    repaired: list[Json] = [{"engine": "encoder"}, *rbfrm]
    cpu: dict[str, list[Json]] = {
        "fused": [{"engine": "fused"}],
        "staged": [*repaired, *({"engine": name} for name in ("decoder", "head", "segmentation"))],
    }
    cuda: dict[str, list[Json]] = {
        "staged": [*repaired, {"engine": "tail"}, fuse],
        "unmerged": [*repaired, *({"engine": name} for name in ("decoder", "head", "segmentation_levels")), fuse],
        "fused": [{"engine": "fused_levels"}, fuse],
    }
    return {
        "stages": found,
        "assets": {"reference": _describe_reference(stages)} if "encoder" in stages else {},
        "programs": {"cpu": _list_programs(cpu, found), "cuda": _list_programs(cuda, found)},
        "decision": {"smooth": {"rule": "mean_median", "size_px": 5}, "score": {"rule": "max"}},
    }


def _list_programs(programs: Mapping[str, list[Json]], stages: Mapping[str, Any]) -> list[Json]:
    """Return those programs whose stages are all there."""
    return [
        {"name": name, "steps": steps, "outputs": OUTPUTS}
        for name, steps in programs.items()
        if all(step["engine"] in stages for step in steps if "engine" in step)
    ]


def _describe_reference(stages: Mapping[str, Any]) -> Json:
    """Return the asset `reference`: the features f3 to f5 of one good image."""
    outputs = take(stages["encoder"], "outputs", dict, "stage encoder")
    names = [f"f{level}" for level in REPAIRED_LEVELS]
    shapes = {name: [1, *take(outputs, name, list, "encoder.outputs")[1:]] for name in names}
    in_fused = {f"reference_{level}": f"f{level}" for level in REPAIRED_LEVELS}
    return {
        "file": REFERENCE_FILE,
        "tensors": shapes,
        "swappable": True,
        "picture": "reference.png",
        "made_by": {"steps": [{"engine": "encoder"}], "tensors": {name: name for name in names}},
        **({"in_graphs": {"fused": in_fused}} if "fused" in stages else {}),
    }


def _derive_stages(stages: Mapping[str, Any]) -> Json:
    """Return the stages for a GPU: cut before the maps are added up, and everything behind RBFRM merged."""
    derived: Json = {}
    for name in ("segmentation", "fused"):
        if name in stages:
            entry = stages[name]
            outputs = _cut_outputs(take(entry, "outputs", dict, f"stage {name}"))
            inputs = take(entry, "inputs", dict, f"stage {name}")
            derived[f"{name}_levels"] = {"parts": [name], "cut": "fuse_maps", "inputs": inputs, "outputs": outputs}
    parts = ["decoder", "head", "segmentation"]
    if all(name in stages for name in parts):
        made: Json = {}
        needed: Json = {}
        for name in parts:
            inputs = take(stages[name], "inputs", dict, f"stage {name}")
            needed |= {tensor: dims for tensor, dims in inputs.items() if tensor not in made}
            made |= take(stages[name], "outputs", dict, f"stage {name}")
        features = [f"f{level}" for level in range(1, 6)]
        repaired = [f"r{level}k{size}" for level in REPAIRED_LEVELS for size in PATCH_SIZES]
        inputs = {name: needed[name] for name in (*features, *repaired) if name in needed}
        outputs = _cut_outputs({"reconstruction": made.get("reconstruction"), "map": made.get("map")})
        derived["tail"] = {"parts": parts, "cut": "fuse_maps", "inputs": inputs, "outputs": outputs}
    return derived


def _cut_outputs(outputs: Mapping[str, Any]) -> Json:
    """Return a stage's outputs with the maps of the levels, each half as large as the one before, in place of `map`."""
    n, c, h, w = take(outputs, "map", list, "a stage's outputs")
    levels = {name: [n, c, h >> level, w >> level] for level, name in enumerate(LEVEL_MAPS)}
    return {**{name: dims for name, dims in outputs.items() if name != "map"}, **levels}
