"""DLPack capsules: what is read from them, and that each is used and given back exactly once."""

import gc
from typing import Any

import numpy as np
import pytest

from ndp_rt.devices.cuda.dlpack import take_capsule
from ndp_rt.errors import InputError
from tests.fakes.dlpack_producer import DlpackProducer

IMAGE = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)


@pytest.mark.parametrize("version", [None, (1, 0), (1, 7)])
@pytest.mark.parametrize("view", [IMAGE, IMAGE[::-1, :, ::2], IMAGE.transpose(2, 0, 1), IMAGE[:, 1]])
def test_reads_address_shape_strides_and_type(version: tuple[int, int] | None, view: np.ndarray) -> None:
    taken = take_capsule(DlpackProducer(view, version=version, byte_offset=6).__dlpack__())
    assert (taken.pointer, taken.shape, taken.strides) == (view.ctypes.data, view.shape, view.strides)
    assert taken.type_name == "uint16"


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_without_strides_it_is_dense(version: tuple[int, int] | None) -> None:
    assert take_capsule(DlpackProducer(IMAGE, version=version, is_dense=True).__dlpack__()).strides == IMAGE.strides


@pytest.mark.parametrize(
    ("dtype", "type_code", "name"),
    [
        ("uint8", None, "uint8"),
        ("float32", None, "float32"),
        ("int64", None, "int64"),
        ("bool", None, "bool"),
        ("uint16", 4, "bfloat16"),
        ("complex64", None, "complex64"),
        ("uint8", 99, "type 99 of 8"),
    ],
)
def test_names_types_as_numpy_does(dtype: str, type_code: int | None, name: str) -> None:
    producer = DlpackProducer(np.zeros((2, 2), dtype), type_code=type_code)
    assert take_capsule(producer.__dlpack__()).type_name == name


@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize("closes", [True, False])
def test_is_given_back_once_when_it_is_closed_or_forgotten(version: tuple[int, int] | None, closes: bool) -> None:
    producer = DlpackProducer(IMAGE, version=version)
    capsule = producer.__dlpack__()
    taken = take_capsule(capsule)
    assert producer.given_back == 0
    if closes:
        taken.owner.close()
        assert producer.given_back == 1
        taken.owner.close()
    del taken
    assert producer.given_back == 1
    del capsule
    gc.collect()
    assert producer.given_back == 1


def test_a_producer_may_have_nothing_to_take_back() -> None:
    producer = DlpackProducer(IMAGE, has_deleter=False)
    take_capsule(producer.__dlpack__()).owner.close()
    assert producer.given_back == 0


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_used_capsule_is_refused(version: tuple[int, int] | None) -> None:
    producer = DlpackProducer(IMAGE, version=version)
    capsule = producer.__dlpack__()
    taken = take_capsule(capsule)
    with pytest.raises(InputError, match="expected an unused DLPack capsule"):
        take_capsule(capsule)
    assert producer.given_back == 0 and taken.shape == IMAGE.shape


def test_another_major_version_is_given_back_and_refused() -> None:
    producer = DlpackProducer(IMAGE, version=(2, 1))
    with pytest.raises(InputError, match=r"expected DLPack below 2\.0, got 2\.1"):
        take_capsule(producer.__dlpack__())
    assert producer.given_back == 1


@pytest.mark.parametrize("other", [None, 7, IMAGE, "dltensor"])
def test_what_is_no_capsule_is_refused(other: object) -> None:
    with pytest.raises(InputError, match="capsule from __dlpack__, got"):
        take_capsule(other)


@pytest.mark.parametrize("options", [{}, {"max_version": (1, 0)}])
def test_takes_numpys_capsules(options: dict[str, Any]) -> None:
    try:
        capsule = IMAGE[:, ::2].__dlpack__(**options)
    except TypeError:
        pytest.skip("needs NumPy 2.1 or newer: pip install -U numpy")
    taken = take_capsule(capsule)
    view = IMAGE[:, ::2]
    assert (taken.pointer, taken.shape, taken.strides) == (view.ctypes.data, view.shape, view.strides)


@pytest.mark.torch
@pytest.mark.parametrize("options", [{}, {"max_version": (1, 0)}])
def test_takes_pytorchs_capsules(options: dict[str, Any]) -> None:
    import torch

    tensor = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4).permute(1, 2, 0)
    taken = take_capsule(tensor.__dlpack__(**options))
    assert (taken.pointer, taken.shape, taken.strides) == (tensor.data_ptr(), (2, 4, 3), (4, 1, 8))
    assert taken.type_name == "uint8"
