"""The types that an engine's layers compute in, from what TensorRT's inspector says of them.

Formats seen: 8.2 to 9 write "Format/Datatype": "Channel major FP16 format where channel % 8 == 0", 10 and later "Half"
or "Datatype": "BFloat16". Convolutions are CaskConvolution and the like, or "correlation" and "gemm" where the compiler
behind newer versions made them; a type of layer that is not known here counts as one that does not multiply. Words that
are not known refuse an engine only where its compiler was free to choose types.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ndp_rt.engines.backends.tensorrt.library import describe, find_version
from ndp_rt.errors import EngineError

log = logging.getLogger("ndp_rt")

# The kinds that do the arithmetic, by what their inspector's words match.
PRODUCT_KINDS = ("convolution", "deconvolution", "matrix product")
UNKNOWN = "unknown"
# In this order: BFloat16 also matches Float, and a deconvolution's name holds "convolution".
DATATYPES = (
    (re.compile(r"bf16|bfloat"), "bf16"),
    (re.compile(r"fp16|half"), "f16"),
    (re.compile(r"int8"), "i8"),
    (re.compile(r"fp8"), "fp8"),
    (re.compile(r"fp32|float"), "f32"),
)
KINDS = (
    (re.compile(r"deconv|convtranspose"), "deconvolution"),
    (re.compile(r"conv(?!ert)|correlation"), "convolution"),
    (re.compile(r"gemm|matrixmultiply|matmul|fullyconnected"), "matrix product"),
)
# Kernels' names, for layers whose kind says nothing.
TACTICS = (
    (re.compile(r"dgrad"), "deconvolution"),
    (re.compile(r"fprop|implicit_gemm|cudnn"), "convolution"),
    (re.compile(r"gemm|_mha_"), "matrix product"),
)
MOVES = re.compile(r"reformat|noop|shuffle|constant|cast|signal|wait|copy")
# Tensor cores on float32 tensors: the kernel's name says so, the tensor's type does not.
TF32_TACTIC = re.compile(r"tf32|_s1688")
TYPED_SINCE = (10, 0)
WANTED = {"fp32": "f32", "tf32": "tf32", "fp16": "f16", "bf16": "bf16", "int8": "i8"}


def count_layers(text: str) -> dict[str, dict[str, int]]:
    """Return how many layers of each kind compute in each type; empty where the inspector says nothing of types.

    Args:
        text: what `EngineInspector.get_engine_information` gave as JSON.
    """
    try:
        return count_types(json.loads(text, strict=False).get("Layers", []))  # names hold raw control characters
    except (ValueError, AttributeError):
        return {}


def count_types(layers: Iterable[Any]) -> dict[str, dict[str, int]]:
    """Return the same for layers with the inspector's keys."""
    counts: dict[str, Counter[str]] = {}
    for layer in layers:
        if isinstance(layer, Mapping):  # otherwise a name alone: the engine was built without details
            counts.setdefault(find_kind(layer), Counter())[find_type(layer)] += 1
    return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}


def find_kind(layer: Mapping[str, Any]) -> str:
    """Return one of PRODUCT_KINDS for a layer that multiplies, else the inspector's own word for it."""
    kind = str(layer.get("LayerType", UNKNOWN))
    if MOVES.search(kind.lower()):
        return kind
    tactic = str(layer.get("TacticName", ""))
    for words, patterns in ((kind, KINDS), (str(layer.get("ParameterType", "")), KINDS), (tactic, TACTICS)):
        for pattern, name in patterns:
            if pattern.search(words.lower()):
                return name
    return kind


def find_type(layer: Mapping[str, Any]) -> str:
    """Return the type that a layer computes in: its first input's, or tf32 where the kernel's name says so."""
    inputs = layer.get("Inputs") or layer.get("Outputs") or []
    first = inputs[0] if inputs and isinstance(inputs[0], Mapping) else {}
    words = str(first.get("Datatype") or first.get("Format/Datatype") or "").lower()
    found = next((name for pattern, name in DATATYPES if pattern.search(words)), UNKNOWN)
    if found == "f32" and TF32_TACTIC.search(str(layer.get("TacticName", "")).lower()):
        return "tf32"
    return found


def sum_products(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return how many layers that multiply compute in each type."""
    total: Counter[str] = Counter()
    for kind in PRODUCT_KINDS:
        total.update(counts.get(kind, {}))
    return dict(sorted(total.items()))


def check_products(counts: Mapping[str, Mapping[str, int]], precision: str, lib: Any, who: str) -> None:
    """Check the types of what multiplies against a precision.

    In fp16 and bf16 some layers stay in float32 on purpose, so most have to be in the one that was asked for; there
    are no deconvolutions in bf16, so those do not count. In int8 some stay in fp16, and most may not be in float32. In
    fp32 all are, in tf32 all that there are TF32 kernels for. Types that are not known are warned of where the
    network's types bind the compiler.

    Args:
        counts: as `count_layers` returns them.
        precision: that was asked for.
        lib: the module tensorrt or tensorrt_rtx that built them.
        who: multiplies, for the message.

    Raises:
        EngineError: they are in others.
    """
    kinds = dict(counts)
    if precision == "bf16":
        kinds["deconvolution"] = {name: n for name, n in counts.get("deconvolution", {}).items() if name != "f32"}
    if _fits(sum_products(kinds), precision):
        return
    known, unknown_count = _split(sum_products(kinds))
    is_odd = not known or _fits(_add(known, precision, unknown_count), precision)
    _refuse(f"asked for {precision}, {who} multiplies in {_describe(sum_products(counts))}.", is_odd, lib)


def compare_products(built: Mapping[str, int], asked: Mapping[str, int], precision: str, lib: Any) -> None:
    """Compare what multiplies in an engine with the network that it was built from.

    Layers may have been merged, so numbers may be smaller, but not by a change of type. Where the network's types bind
    the compiler, layers of unknown types, and those that are called something else, are warned of.

    Raises:
        EngineError: more compute in float32 than the network has, or far fewer in the precision asked for.
    """
    if _keeps_types(built, asked, precision):
        return
    known, _ = _split(built)
    unseen_count = max(0, sum(asked.values()) - sum(known.values()))
    _refuse(
        f"asked for {precision}, {describe(lib)} changed the types: layers that multiply were {_describe(asked)} in "
        f"the network and are {_describe(built)} in the engine.",
        _keeps_types(_add(known, precision, unseen_count), asked, precision),
        lib,
    )


def _refuse(message: str, is_odd: bool, lib: Any) -> None:
    """Raise, or warn where names alone are not known and the network's types bind the compiler."""
    if not (is_odd and find_version(lib) >= TYPED_SINCE):
        raise EngineError(message)
    log.warning("%s No layer is known to be of a wrong type, so it is used.", message)


def _fits(products: Mapping[str, int], precision: str) -> bool:
    wanted, count = WANTED[precision], sum(products.values())
    right = products.get(wanted, 0)
    if precision == "fp32":
        is_right = right == count
    elif precision == "tf32":
        is_right = right + products.get("f32", 0) == count
    elif precision == "int8":
        is_right = right > 0 and 2 * (right + products.get("f16", 0)) > count
    else:
        is_right = 2 * right > count
    return bool(count) and is_right


def _keeps_types(built: Mapping[str, int], asked: Mapping[str, int], precision: str) -> bool:
    wanted = WANTED[precision]
    wide, wide_asked = (found.get("f32", 0) + found.get("tf32", 0) for found in (built, asked))
    return wide <= wide_asked and 2 * built.get(wanted, 0) >= asked.get(wanted, 0)


def _split(products: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Return the layers whose types are known, by type, and how many others there are."""
    return {name: count for name, count in products.items() if name != UNKNOWN}, products.get(UNKNOWN, 0)


def _add(products: Mapping[str, int], precision: str, count: int) -> dict[str, int]:
    """Return products with `count` more layers in the precision asked for."""
    wanted = WANTED[precision]
    return {**products, wanted: products.get(wanted, 0) + count}


def _describe(products: Mapping[str, int]) -> str:
    return ", ".join(f"{number} x {name}" for name, number in products.items()) or "none"
