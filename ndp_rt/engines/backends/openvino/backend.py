"""The OpenVINO backend: engines on the CPU."""

from collections.abc import Mapping

from ndp_rt.devices.machine import BF16_FLAGS, find_cpu
from ndp_rt.engines.backend import LibraryBackend, describe_counts
from ndp_rt.errors import EngineError, InputError
from ndp_rt.program.manifest import INT8_PRECISIONS

# What is not in int8 computes in these; which layers are is in the graph that the engine is made of.
PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32", "mixed": "bf16"}
INT8_NAMES = ("i8", "u8")
# Layer types that do the arithmetic; the others move, reshape or convert.
COMPUTE_LAYERS = frozenset({"Convolution", "Deconvolution", "MatMul", "FullyConnected", "GroupConvolution"})
REMEDY = "pip install openvino"


class OpenVinoBackend(LibraryBackend):
    """See `ndp_rt.engines.backend.LibraryBackend`."""

    name = "openvino"
    order = 10
    precisions = tuple(PRECISIONS)
    distributions = ("openvino",)
    remedy = REMEDY
    engine_module = "ndp_rt.engines.backends.openvino.engine"

    def check_machine(self, precision: str) -> None:
        if precision == "mixed" and not find_cpu().has_bf16:
            raise InputError(
                f"expected a processor with {' or '.join(BF16_FLAGS)} for precision mixed, which is int8 and bf16, got "
                f"{find_cpu().model_name}. Take int8 or fp32."
            )

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        wanted = PRECISIONS[precision]
        compute = {kind: found for kind, found in counts.items() if kind in COMPUTE_LAYERS}
        if precision in INT8_PRECISIONS:
            if not any(found.get(name) for found in compute.values() for name in INT8_NAMES):
                raise EngineError(
                    f"asked for {precision}, OpenVINO computes {describe_counts(compute)}: no int8 layer is left. "
                    "Build with --precision fp32 or bf16."
                )
            return
        if precision == "fp32":
            other = {kind: found for kind, found in compute.items() if set(found) != {wanted}}
            if other:
                raise EngineError(f"asked for fp32, OpenVINO computes {describe_counts(other)}. Report this machine.")
            return
        convolutions = counts.get("Convolution", {})
        # A few may stay in f32, where the processor's library has no bf16 form for their shape; not most of them.
        if 2 * convolutions.get(wanted, 0) <= sum(convolutions.values()):
            cpu = find_cpu()
            hint = "its flags name bf16, so report this" if cpu.has_bf16 else f"it has none of {', '.join(BF16_FLAGS)}"
            raise EngineError(
                f"asked for {precision}, OpenVINO computes {describe_counts(compute)} on {cpu.model_name}: {hint}. "
                "Build with --precision fp32."
            )
