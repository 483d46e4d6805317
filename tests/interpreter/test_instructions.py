"""Single instructions against NumPy, over every pair of values at the edges of their types."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.interpreter.interpreter import Interpreter, LaunchError
from tests.interpreter.memory import copy_to_device, make_empty

KINDS = {
    "s16": np.int16,
    "u16": np.uint16,
    "s32": np.int32,
    "u32": np.uint32,
    "s64": np.int64,
    "u64": np.uint64,
    "f32": np.float32,
    "f64": np.float64,
    "pred": np.uint32,
}
TINY = 1e-40  # denormal
REALS = [0.0, -0.0, TINY, -TINY, 1.2e-38, 0.5, 1.0, -1.5, 3.0, -7.25, 255.0, 6.5e4, -3e9, 3.4e38, np.inf, np.nan]


def make_values(kind: str) -> np.ndarray:
    """Return 16 values of a type."""
    dtype = KINDS[kind]
    if kind[0] == "f":
        return np.array(REALS, dtype)
    if kind == "pred":
        return np.array([0, 1] * 8, dtype)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    edges = [low, low + 1, high, high - 1, high // 2, high // 3, *(7 * low // 9, 11, 12345, 4, 2, 5, 31, 33, 1, 0)]
    return np.array(edges, dtype)


def run(interpreter: Interpreter, instruction: str, kinds: list[str], values: list[np.ndarray]) -> np.ndarray:
    """Return what 256 threads get; kinds are the result's, then the operands'."""
    lines = []
    for index, kind in enumerate(kinds[1:]):
        size = np.dtype(KINDS[kind]).itemsize
        lines += [f"mad.wide.u32 %rd9, %r9, {size}, %rd{index};"]
        if kind == "pred":
            lines += [f"ld.global.u32 %r{index}, [%rd9];", f"setp.ne.u32 %pred{index}, %r{index}, 0;"]
        else:
            lines += [f"ld.global.{kind} %{kind}{index}, [%rd9];"]
    names = ", ".join(f"%{kind}{index}" for index, kind in enumerate(kinds[1:]))
    lines += [f"{instruction} %{kinds[0]}8, {names};"]
    if kinds[0] == "pred":
        lines += ["selp.u32 %u328, 1, 0, %pred8;"]
    held = "u32" if kinds[0] == "pred" else kinds[0]
    lines += [f"mad.wide.u32 %rd9, %r9, {np.dtype(KINDS[held]).itemsize}, %rd8;", f"st.global.{held} [%rd9], %{held}8;"]
    registers = [f".reg .{'b' + kind[1:] if kind != 'pred' else kind} %{kind}<10>;" for kind in KINDS]
    parameters = ["a", "b", "c", "d", "out"][-len(kinds) :]
    loads = [f"ld.param.u64 %rd{i}, [{name}];" for i, name in enumerate(parameters[:-1])]
    text = "\n".join(
        [
            f".visible .entry k({', '.join(f'.param .u64 {name}' for name in parameters)})",
            "{",
            *(*registers, ".reg .b64 %rd<10>;", ".reg .b32 %r<10>;"),
            *(*loads, "ld.param.u64 %rd8, [out];", "mov.u32 %r9, %tid.x;"),
            *(*lines, "ret;", "}"),
        ]
    )
    out = make_empty((256,), KINDS[held])
    arguments = [copy_to_device(one) for one in values]
    interpreter.read_text(text).get_function("k")((1,), (256,), (*arguments, out))
    return out.get()


def flush(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(0, values), values).astype(np.float32)


def flushed(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda *values: flush(function(*map(flush, values)))


def wide(dtype: type) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda a, b: a.astype(dtype) * b.astype(dtype)


def high(bits: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda a, b: np.array([int(x) * int(y) >> bits for x, y in zip(a, b, strict=True)], a.dtype)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ((a - np.fmod(a, b)) // b).astype(a.dtype)


def permute(a: np.ndarray, b: np.ndarray, choice: np.ndarray) -> np.ndarray:
    found = []
    for x, y, z in zip(a, b, choice, strict=True):
        data = int(x).to_bytes(4, "little") + int(y).to_bytes(4, "little")
        nibbles = [int(z) >> 4 * i & 15 for i in range(4)]
        picked = [data[n & 7] if n < 8 else 255 * (data[n & 7] >> 7) for n in nibbles]
        found.append(int.from_bytes(bytes(picked), "little"))
    return np.array(found, np.uint32)


def insert(a: np.ndarray, b: np.ndarray, position: np.ndarray, length: np.ndarray) -> np.ndarray:
    found = []
    for x, y, p, n in zip(a, b, position & 255, length & 255, strict=True):
        mask = ((1 << int(n)) - 1 << int(p)) & 0xFFFFFFFF
        found.append((int(y) & ~mask) | (int(x) << int(p) & mask))
    return np.array(found, np.uint32)


def saturate(dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    limits = np.iinfo(dtype)
    return lambda a: np.clip(np.nan_to_num(np.trunc(a.astype(np.float64))), limits.min, limits.max).astype(dtype)


def smaller(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == b) & np.signbit(a), a, np.fmin(a, b))


def larger(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == b) & ~np.signbit(a), a, np.fmax(a, b))


CASES: list[tuple[str, str, Callable[..., Any]]] = [
    *((f"add.{t}", f"{t} {t} {t}", np.add) for t in ("s16", "s32", "s64", "f64")),
    *((f"sub.{t}", f"{t} {t} {t}", np.subtract) for t in ("s16", "s32", "s64")),
    *((f"mul.lo.{t}", f"{t} {t} {t}", np.multiply) for t in ("s16", "s32", "s64", "u64")),
    *((f"mad.lo.{t}", f"{t} {t} {t} {t}", lambda a, b, c: a * b + c) for t in ("s32", "s64")),
    *((f"mul.hi.{t}", f"{t} {t} {t}", high(int(t[1:]))) for t in ("u16", "s32", "u32", "s64", "u64")),
    ("mul.wide.s32", "s64 s32 s32", wide(np.int64)),
    ("mul.wide.u32", "u64 u32 u32", wide(np.uint64)),
    ("mul.wide.u16", "u32 u16 u16", wide(np.uint32)),
    ("mad.wide.s32", "s64 s32 s32 s64", lambda a, b, c: wide(np.int64)(a, b) + c),
    *((f"div.{t}", f"{t} {t} {t}", divide) for t in ("s32", "u32", "s64", "u64")),
    *((f"rem.{t}", f"{t} {t} {t}", np.fmod) for t in ("s32", "u32", "s64", "u64")),
    *((f"min.{t}", f"{t} {t} {t}", np.minimum) for t in ("s32", "u32", "s64")),
    *((f"max.{t}", f"{t} {t} {t}", np.maximum) for t in ("s32", "u32", "u16")),
    ("neg.s32", "s32 s32", np.negative),
    ("abs.s32", "s32 s32", np.abs),
    ("shl.b32", "u32 u32 u32", lambda a, b: np.where(b < 32, a << (b & 31), 0)),
    ("shl.b64", "u64 u64 u32", lambda a, b: np.where(b < 64, a << (b & 63).astype(np.uint64), 0)),
    ("shr.u32", "u32 u32 u32", lambda a, b: np.where(b < 32, a >> (b & 31), 0)),
    ("shr.u16", "u16 u16 u32", lambda a, b: np.where(b < 16, a >> (b & 15).astype(np.uint16), 0)),
    ("shr.s32", "s32 s32 u32", lambda a, b: a >> np.minimum(b, 31).astype(np.int32)),
    ("shr.s64", "s64 s64 u32", lambda a, b: a >> np.minimum(b, 63).astype(np.int64)),
    *((f"{n}.b{bits}", " ".join([f"u{bits}"] * 3), getattr(np, f"bitwise_{n}")) for n in ("and", "or", "xor")
      for bits in (16, 32, 64)),
    ("not.b32", "u32 u32", np.invert),
    ("bfi.b32", "u32 u32 u32 u32 u32", insert),
    ("prmt.b32", "u32 u32 u32 u32", permute),
    ("popc.b32", "u32 u32", np.bitwise_count),
    ("selp.s32", "s32 s32 s32 pred", lambda a, b, p: np.where(p, a, b)),
    ("and.pred", "pred pred pred", np.bitwise_and),
    ("or.pred", "pred pred pred", np.bitwise_or),
    ("xor.pred", "pred pred pred", np.bitwise_xor),
    ("not.pred", "pred pred", lambda a: 1 - a),
    ("cvt.s64.s32", "s64 s32", lambda a: a.astype(np.int64)),
    ("cvt.u64.u32", "u64 u32", lambda a: a.astype(np.uint64)),
    ("cvt.u32.u64", "u32 u64", lambda a: a.astype(np.uint32)),
    ("cvt.u16.u32", "u16 u32", lambda a: a.astype(np.uint16)),
    ("cvt.u32.u16", "u32 u16", lambda a: a.astype(np.uint32)),
    ("cvt.s32.s16", "s32 s16", lambda a: a.astype(np.int32)),
    ("cvt.u32.u8", "u32 u32", lambda a: a & 255),
    ("cvt.s32.s8", "s32 s32", lambda a: a.astype(np.int8).astype(np.int32)),
    *((f"cvt.rn.f32.{t}", f"f32 {t}", lambda a: a.astype(np.float32)) for t in ("s32", "u32", "u16")),
    *((f"cvt.rn.f64.{t}", f"f64 {t}", lambda a: a.astype(np.float64)) for t in ("s64", "u32")),
    ("cvt.rn.ftz.f32.f64", "f32 f64", lambda a: flush(a.astype(np.float32))),
    ("cvt.f64.f32", "f64 f32", lambda a: a.astype(np.float64)),
    ("cvt.rzi.ftz.u32.f32", "u32 f32", saturate(np.uint32)),
    ("cvt.rzi.s32.f32", "s32 f32", saturate(np.int32)),
    *((f"setp.{n}.{t}", f"pred {t} {t}", f) for t in ("s32", "u32", "s64", "u64", "u16")
      for n, f in (("eq", np.equal), ("ne", np.not_equal), ("lt", np.less), ("le", np.less_equal),
                   ("gt", np.greater), ("ge", np.greater_equal))),
    *((f"setp.{n}.f32", "pred f32 f32", f) for n, f in (
        ("eq", np.equal), ("neu", np.not_equal), ("lt", np.less), ("gt", np.greater), ("ge", np.greater_equal),
        ("equ", lambda a, b: (a == b) | np.isnan(a + b - b - a) & (np.isnan(a) | np.isnan(b))),
        ("ltu", lambda a, b: ~(a >= b)), ("leu", lambda a, b: ~(a > b)), ("gtu", lambda a, b: ~(a <= b)),
        ("geu", lambda a, b: ~(a < b)), ("ne", lambda a, b: (a < b) | (a > b)),
        ("nan", lambda a, b: np.isnan(a) | np.isnan(b)), ("num", lambda a, b: ~(np.isnan(a) | np.isnan(b))))),
    ("setp.gt.ftz.f32", "pred f32 f32", lambda a, b: flush(a) > flush(b)),
    *((f"{n}.f32", "f32 f32 f32", f) for n, f in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply),
                                                  ("div.rn", np.divide), ("min", smaller), ("max", larger))),
    *((f"{n}.ftz.f32", "f32 f32 f32", flushed(f)) for n, f in (
        ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div.rn", np.divide), ("min", smaller),
        ("max", larger))),
    ("fma.rn.ftz.f32", "f32 f32 f32 f32",
     flushed(lambda a, b, c: (a.astype(np.longdouble) * b + c).astype(np.float32))),
    ("rcp.rn.ftz.f32", "f32 f32", flushed(lambda a: np.float32(1) / a)),
    ("sqrt.rn.ftz.f32", "f32 f32", flushed(np.sqrt)),
    ("neg.ftz.f32", "f32 f32", lambda a: -flush(a)),
    ("abs.ftz.f32", "f32 f32", lambda a: np.abs(flush(a))),
    ("mul.rn.f64", "f64 f64 f64", np.multiply),
    ("div.rn.f64", "f64 f64 f64", np.divide),
]  # fmt: skip


@pytest.mark.parametrize(("instruction", "kinds", "define"), CASES, ids=[case[0] for case in CASES])
def test_an_instruction_equals_its_definition(
    interpreter: Interpreter, rng: np.random.Generator, instruction: str, kinds: str, define: Callable[..., Any]
) -> None:
    names = kinds.split()
    operands = [make_values(kind) for kind in names[1:]]
    pairs = [rng.permutation(16).repeat(16), np.tile(rng.permutation(16), 16), *rng.integers(0, 16, (2, 256))]
    values = [one[index] for one, index in zip(operands, pairs, strict=False)]
    if instruction.startswith(("div.s", "div.u", "rem.")):
        values[1][values[1] == 0] = 7  # what a division by zero gives is not defined
    with np.errstate(all="ignore"):
        expected = np.asarray(define(*values)).astype(KINDS[names[0]])
    got = run(interpreter, instruction, names, values)
    assert np.array_equal(got, expected, equal_nan=names[0][0] == "f")
    if names[0][0] == "f":
        assert np.array_equal(np.signbit(got)[~np.isnan(got)], np.signbit(expected)[~np.isnan(got)])


def test_powers_of_two_are_near(interpreter: Interpreter) -> None:
    values = np.linspace(-140, 130, 256).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = flush(np.exp2(values.astype(np.float64)).astype(np.float32))
    got = run(interpreter, "ex2.approx.ftz.f32", ["f32", "f32"], [values])
    assert np.allclose(got, expected, rtol=2**-21, atol=2e-38)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sin.approx.f32 %f1, %f2;", "unknown instruction sin.approx.f32"),
        ("st.volatile.global.u32 [%rd1], %r1;", "unknown instruction st.volatile.global.u32"),
        ("add.s32 %r1, %r2, %rd1;", "a register of another width: add.s32"),
        ("add.s32 %r1, %r2;", "another number of operands: add.s32"),
        ("bar.sync 1;", "unknown barrier"),
        ("bra $nowhere;", r"no label \$nowhere"),
        ("mov.u32 %r1, %clock;", "unknown register %clock"),
        ("mov.u64 %rd1, table;", "unknown symbol table"),
        (".local .b32 x;", "unknown statement .local"),
    ],
)
def test_what_is_not_known_is_named(interpreter: Interpreter, line: str, message: str) -> None:
    text = ".visible .entry k()\n{\n.reg .b32 %r<3>;\n.reg .b64 %rd<2>;\n.reg .f32 %f<3>;\n" + line + "\nret;\n}\n"
    with pytest.raises(LaunchError, match=message):
        interpreter.read_text(text)
