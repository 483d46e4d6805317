"""Ops: steps of a program that are no engines, each with a definition and a form for each kind of device."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ndp_rt.arrays import Array, FloatArray
from ndp_rt.errors import InputError
from ndp_rt.kernels.checks import DeviceArray
from ndp_rt.kernels.load import KernelSet
from ndp_rt.program.tensors import TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto

Params = Mapping[str, Any]  # from the manifest: numbers and strings


class MissingFormError(InputError):
    """An op that has no form for this kind of device."""


class Op(Protocol):
    """An operation by name. It holds no state; its methods import what they need.

    `reads` are what the program's step names, in its order: tensors, and parts of assets (`is_asset_part`). Every op
    works on batches: the first axis of all tensors that are no parts of assets counts images.
    """

    @property
    def name(self) -> str: ...

    def infer(self, params: Params, reads: Sequence[TensorSpec]) -> list[TensorSpec]:
        """Return what the op writes, in order; the names in it are the op's own, a step gives others.

        Raises:
            InputError: parameters or tensors that the op does not take.
        """
        ...

    def define(self, params: Params, *reads: Array) -> list[Array]:
        """Compute the definition of correct: NumPy, float64 inside."""
        ...

    def make_host(self, params: Params, reads: Sequence[TensorSpec]) -> "HostForm":
        """Return the form for arrays on the host; the batch axis may be None.

        Raises:
            InputError: as `infer`.
            MissingFormError: there is none.
        """
        ...

    def make_cuda(self, params: Params, reads: Sequence[TensorSpec], dtype: str) -> "CudaForm":
        """Return the form for a GPU.

        Args:
            params: as for `infer`.
            reads: with a fixed batch axis.
            dtype: what the tensors hold: float32, float16 or bfloat16 (held as uint16).

        Raises:
            InputError: as `infer`, or a dtype that the form does not take.
            MissingFormError: there is none.
        """
        ...


@runtime_checkable
class CountedOp(Op, Protocol):
    """An op that says how much it computes: beside what it must move, the bound of any GPU's time (`bench`)."""

    @property
    def is_product(self) -> bool:
        """Whether that is a product of matrices, which tensor cores do in float16 and bfloat16."""
        ...

    def count_flops(self, params: Params, reads: Sequence[TensorSpec]) -> int:
        """Return the operations that the definition cannot do without, a multiply-add as 2.

        Args:
            params: as for `infer`.
            reads: with a fixed batch axis.
        """
        ...


class HostForm(Protocol):
    """An op on the host, with the scratch memory that it needs: one `run` at a time."""

    def prepare(self, assets: Sequence[FloatArray]) -> Any:
        """Return what `run` needs of the parts of assets among the step's reads, in order; once for each asset.

        May run beside `run`. An op that reads no asset gets none and returns None.

        Raises:
            InputError: a shape or type that was not announced.
        """
        ...

    def run(self, prepared: Any, reads: Sequence[FloatArray], writes: Sequence[FloatArray]) -> None:
        """Compute a batch; allocates nothing of the size of a tensor.

        Args:
            prepared: what `prepare` returned.
            reads: the step's tensors without the parts of assets: float32 [n, ...], dense.
            writes: the same, to be overwritten.

        Raises:
            InputError: a shape, type or layout differs from the above.
        """
        ...


class CudaForm(Protocol):
    """An op on a GPU for one batch size. It owns no memory: the caller gives what `prepared` and scratch ask for."""

    @property
    def prepared(self) -> Mapping[str, TensorSpec]:
        """The device memory that `prepare` fills; the same for every batch size, so that forms share it."""
        ...

    @property
    def scratch_bytes(self) -> int:
        """The bytes of memory that `enqueue` overwrites; where it is 0, `enqueue` gets None."""
        ...

    def prepare(
        self,
        kernels: KernelSet,
        assets: Sequence[DeviceArray],
        prepared: Mapping[str, DeviceArray],
        *,
        stream: Any,
    ) -> None:
        """Fill `prepared` from the parts of assets among the step's reads, in order; once for each asset.

        Raises:
            InputError: a shape, type or layout that was not announced.
            DeviceError: a launch is refused.
        """
        ...

    def enqueue(
        self,
        kernels: KernelSet,
        reads: Sequence[DeviceArray],
        prepared: Mapping[str, DeviceArray],
        writes: Sequence[DeviceArray],
        scratch: DeviceArray | None,
        *,
        stream: Any,
    ) -> None:
        """Put a batch on a stream and return before it is done; allocates nothing, so that it can be captured.

        Args:
            kernels: where the kernels come from.
            reads: the step's tensors without the parts of assets: [n, ...], device, dense.
            prepared: as `prepare` filled it.
            writes: device, dense; overwritten.
            scratch: uint8 [scratch_bytes] or longer, device, dense, at a multiple of 256 bytes; overwritten.
            stream: the CuPy stream that owns `writes` and `scratch`.

        Raises:
            InputError: a shape, type or layout differs from the above.
            DeviceError: a launch is refused.
        """
        ...


class SmoothForm(Protocol):
    """Smoothing on a GPU, of a map or of what a map is made of."""

    def enqueue(
        self,
        kernels: KernelSet,
        reads: Sequence[DeviceArray],
        smoothed: DeviceArray,
        tile_maxima: DeviceArray,
        *,
        stream: Any,
    ) -> None:
        """Put smoothing on a stream and return before it is done.

        Args:
            kernels: where the kernel comes from.
            reads: float32 [n, 1, ...], device, dense: one map, or what the op reads whose work this form takes over.
            smoothed: float32 [n, 1, h, w], device, dense; overwritten.
            tile_maxima: float32 [n, count_smooth_tiles(h, w)], device, dense; overwritten: the largest value of each
                tile of `smoothed`, NaN where a value in it is not finite. What the score `max` is made of.
            stream: the CuPy stream that owns `smoothed`.
        """
        ...


@runtime_checkable
class SmoothingForm(CudaForm, Protocol):
    """A CUDA form whose work smoothing can take over, so that the map between them never goes to memory."""

    def with_smoothing(self, size_px: int) -> SmoothForm:
        """Return a form that does this op and then the rule "mean_median" of `size_px`, reading what the op reads."""
        ...


@runtime_checkable
class CuttingOp(Op, Protocol):
    """An op whose work may also stand at the end of a graph, and be cut off there for a device that has the op."""

    @property
    def cut_names(self) -> tuple[str, ...]:
        """The tensors that replace the graph's output: what the op reads."""
        ...

    def cut(self, model: "ModelProto", output: str) -> "ModelProto":
        """Return the model with `cut_names` in place of `output`, and without what made `output` of them.

        Raises:
            BundleError: the graph does not end in this op.
        """
        ...


def is_asset_part(name: str) -> bool:
    """Tell whether a step reads a part of an asset, ASSET.TENSOR, rather than a tensor."""
    return "." in name


def take_count(op: str, params: Params, name: str) -> int:
    """Return the one parameter of an op, a whole number from 1.

    Raises:
        InputError: it is missing, something else, or not the only one.
    """
    value = params.get(name)
    if set(params) != {name} or type(value) is not int or value < 1:
        raise InputError(f"op {op}: expected the parameter '{name}', a whole number from 1, got {dict(params)}.")
    return value


def describe(specs: Sequence[TensorSpec]) -> str:
    """Return names and shapes for a message."""
    return ", ".join(f"{spec.name} {spec.to_dims()}" for spec in specs) or "nothing"
