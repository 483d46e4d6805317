"""Tensors by name, shape and type, as stages, programs, engines and kernels list them."""

from dataclasses import dataclass
from math import prod

from ndp_rt.errors import BundleError

# The types of a GPU's tensors, with their bytes. bfloat16 is held as uint16 where a library lacks it.
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MAX_DIM_COUNT, MAX_ELEMENT_COUNT = 8, 2**32  # of an image: 16 GiB in float32


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A tensor's name, shape and type; None in the shape is the batch axis, which may have any length from 1."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"

    @property
    def fixed_shape(self) -> tuple[int, ...]:
        """The shape of a tensor whose batch axis is fixed."""
        assert None not in self.shape
        return tuple(size for size in self.shape if size is not None)

    @property
    def size_bytes(self) -> int:
        """The bytes of a tensor whose batch axis is fixed."""
        return prod(self.fixed_shape) * DTYPE_BYTES[self.dtype]

    def with_batch(self, count: int) -> tuple[int, ...]:
        """Return the shape with the batch axis set to `count`."""
        return tuple(count if size is None else size for size in self.shape)

    @classmethod
    def from_dims(cls, name: str, dims: object) -> "TensorSpec":
        """Read manifest dims such as ["n", 3, 256, 256]."""
        if not isinstance(dims, list) or not all(d == "n" or (type(d) is int and d > 0) for d in dims):
            raise BundleError(f"manifest: dims of '{name}': expected a list of 'n' and sizes, got {dims!r:.80}.")
        if len(dims) > MAX_DIM_COUNT or prod(d for d in dims if d != "n") > MAX_ELEMENT_COUNT:
            raise BundleError(
                f"manifest: dims of '{name}': expected at most {MAX_DIM_COUNT} with {MAX_ELEMENT_COUNT} elements in "
                f"all, got {dims!r:.80}."
            )
        return cls(name=name, shape=tuple(None if d == "n" else int(d) for d in dims))

    def to_dims(self) -> list[str | int]:
        return ["n" if size is None else size for size in self.shape]
