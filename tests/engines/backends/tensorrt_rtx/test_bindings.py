"""What both TensorRT backends call, and what the fake stands in for, against the real bindings of TensorRT-RTX."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.engines.backends.tensorrt.library import RTX_INTERFACE, dotted
from ndp_rt.engines.backends.tensorrt_rtx.engine import REASONS
from tests.engines.backends.tensorrt.dump_bindings import dump
from tests.engines.backends.tensorrt.test_bindings import (
    SOURCES,
    Bindings,
    find_owner,
    find_problems,
    is_in,
    parse_signature,
    takes_as_many,
)
from tests.engines.backends.tensorrt.used_names import list_uses
from tests.fakes import fake_tensorrt, fake_tensorrt_rtx

REMEDY = "needs TensorRT-RTX: pip install tensorrt-rtx-cu13"
RTX_SOURCES = sorted(Path(SOURCES[0]).parents[1].joinpath("tensorrt_rtx").glob("*.py"))


@pytest.fixture(scope="module")
def bindings() -> Bindings:
    lib: Any = pytest.importorskip("tensorrt_rtx", reason=REMEDY)
    names: dict[str, list[str]] = {}
    dump(lib.tensorrt_rtx if hasattr(lib, "tensorrt_rtx") and not hasattr(lib, "Builder") else lib, "", names)
    return Bindings(version=f"{dotted(RTX_INTERFACE)}, TensorRT-RTX {lib.__version__}", names=names)


def test_every_name_that_is_used_is_in_the_bindings_and_called_as_they_take_it(bindings: Bindings) -> None:
    uses = [use for use in list_uses([*SOURCES, *RTX_SOURCES]) if is_in(find_owner(use.name), RTX_INTERFACE)]
    problems = [problem for use in uses for problem in find_problems(use, bindings)]
    assert not problems, "\n".join(problems)
    own = {use.name for use in list_uses(RTX_SOURCES)}
    assert {
        "IBuilderConfig.set_compute_capability",
        "IRuntimeCache.deserialize",
        "ICudaEngine.create_runtime_config",
    } <= own


def test_the_fake_has_only_what_the_bindings_have_and_takes_the_same_arguments(bindings: Bindings) -> None:
    lib = fake_tensorrt_rtx.make_fake_rtx()
    problems = []
    for name in (one for one in vars(lib) if one[0].isupper()):
        for member in (one for one in dir(getattr(lib, name)) if not one.startswith("_")):
            full, value = f"{name}.{member}", inspect.getattr_static(getattr(lib, name), member)
            known = fake_tensorrt.ENUMS.get(name, fake_tensorrt_rtx.ENUMS.get(name, (member,)))
            if isinstance(value, fake_tensorrt.Absent) or member not in known:
                continue
            found = bindings.names.get(full)
            if found is None:
                problems.append(f"{full} is not there")
            elif isinstance(value, property) and value.fset is not None and found[0] != "settable":
                problems.append(f"{full} is {found[0]}")
            elif inspect.isfunction(value):
                taken = tuple(inspect.signature(value).parameters)[1:]
                if not any(takes_as_many(parse_signature(line), taken) for line in found[1:]):
                    problems.append(f"{full}{taken} does not fit {found}")
    assert not problems, "\n".join(problems)


def test_the_reasons_against_an_engine_are_the_bindings_bits(bindings: Bindings) -> None:
    lib: Any = pytest.importorskip("tensorrt_rtx", reason=REMEDY)
    bits = {name: int(bit) for name, bit in lib.EngineInvalidityDiagnostics.__members__.items()}
    assert bits == {name.upper().replace(" ", "_"): 1 << number for number, name in enumerate(REASONS)}


def test_enums_have_the_values_that_the_fake_gives_them(bindings: Bindings) -> None:
    lib: Any = pytest.importorskip("tensorrt_rtx", reason=REMEDY)
    for name, members in fake_tensorrt_rtx.ENUMS.items():
        assert {member: int(getattr(getattr(lib, name), member)) for member in members} == members
