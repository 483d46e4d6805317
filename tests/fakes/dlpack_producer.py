"""An array that hands itself out through DLPack, and remembers what it was asked and how often it was given back."""

import ctypes
from typing import Any, ClassVar

from numpy.typing import NDArray

from ndp_rt.devices.cuda import dlpack

CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


class DlpackProducer:
    """Shares NumPy memory as if it lay on a device.

    Attributes:
        streams: what `stream` each `__dlpack__` got.
        given_back: how often the deleter was called.
    """

    _handed_out: ClassVar[set["DlpackProducer"]] = set()  # what a capsule refers to lives until it is given back

    def __init__(
        self,
        array: NDArray[Any],
        *,
        device: tuple[int, int] = (dlpack.CUDA, 0),
        version: tuple[int, int] | None = (1, 0),
        is_dense: bool = False,
        type_code: int | None = None,
        pointer: int | None = None,
        byte_offset: int = 0,
        has_deleter: bool = True,
    ) -> None:
        """Prepare.

        Args:
            array: the memory.
            device: what `__dlpack_device__` says.
            version: None is from before DLPack 1.0: no `max_version`, and the older capsule.
            is_dense: leave the strides out.
            type_code: DLPack's, where it is not the array's own.
            pointer: in place of the array's own address.
            byte_offset: how much of the address is said apart from it.
            has_deleter: False has none to call.
        """
        self.array, self.version = array, version
        self.device = device
        self.streams: list[Any] = []
        self.given_back = 0
        shape, strides = array.shape, [stride // array.itemsize for stride in array.strides]
        self._shape, self._strides = ((ctypes.c_int64 * array.ndim)(*values) for values in (shape, strides))
        self._deleter = dlpack.DELETER(self._take_back) if has_deleter else dlpack.DELETER()
        tensor = dlpack.DlTensor(
            data=array.ctypes.data - byte_offset if pointer is None else pointer,
            device_type=device[0],
            device_id=device[1],
            ndim=array.ndim,
            type_code=CODES[array.dtype.kind] if type_code is None else type_code,
            type_bits=8 * array.itemsize,
            type_lanes=1,
            shape=self._shape,
            strides=None if is_dense else self._strides,
            byte_offset=byte_offset,
        )
        if version is None:
            self._managed: Any = dlpack.DlManagedTensor(tensor=tensor, deleter=self._deleter)
        else:
            self._managed = dlpack.DlManagedTensorVersioned(
                major=version[0], minor=version[1], deleter=self._deleter, tensor=tensor
            )

    def _take_back(self, address: int) -> None:
        assert address == ctypes.addressof(self._managed)
        self.given_back += 1
        DlpackProducer._handed_out.discard(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> object:
        if self.version is None and options:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        self.streams.append(stream)
        DlpackProducer._handed_out.add(self)
        name = dlpack.NAME if self.version is None else dlpack.VERSIONED_NAME
        return _new_capsule(ctypes.addressof(self._managed), name, None)
