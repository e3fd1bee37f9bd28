"""Carry-less multiplication on vectors of 128-bit elements of GF(2^128), four or one at a time.

The field is F2[x] / (x^128 + x^7 + x^2 + x + 1). Every kernel takes a *tag* whose type names the width: ``FOUR`` (512 bits,
``vpclmulqdq``) or ``ONE`` (128 bits, ``pclmulqdq``); numba compiles and caches one version for each. LLVM aborts the
process if told to multiply so on a processor that cannot, so :func:`active_path` reads the features first.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Literal

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, register_model

from common.errors import ConfigurationError

Path = Literal["clmul512", "clmul128", "fft"]
PATHS: tuple[Path, ...] = ("clmul512", "clmul128", "fft")
#: Overrides the choice: one of ``PATHS``.
OVERRIDE = "QKD_CLMUL"
#: Tags: the type, not the value, names the width.
ONE, FOUR = np.uint8(1), np.uint16(4)
POLYNOMIAL = (1 << 128) | 0x87

_NEEDS = {"clmul512": ("pclmul", "vpclmulqdq", "avx512f"), "clmul128": ("pclmul", "sse2"), "fft": ()}


def _features() -> dict[str, bool]:
    """What numba compiles for: the host's features, or what its own settings say instead."""
    if config.CPU_NAME == "generic" and not config.CPU_FEATURES:
        return {}
    if config.CPU_FEATURES:
        return {name[1:]: name[0] == "+" for name in str(config.CPU_FEATURES).split(",") if name[:1] in "+-"}
    return dict(binding.get_host_cpu_features())


def available_paths() -> tuple[Path, ...]:
    """The paths that this processor can run, fastest first; ``fft`` always can."""
    features = _features()
    return tuple(path for path in PATHS if all(features.get(name, False) for name in _NEEDS[path]))


def active_path() -> Path:
    """The path that is used: the fastest, or what the environment variable ``QKD_CLMUL`` names.

    Raises
    ------
    ConfigurationError : the variable names something unknown or something that this processor cannot run.
    """
    wanted = os.environ.get(OVERRIDE)
    paths = available_paths()
    if not wanted:
        return paths[0]
    for path in PATHS:
        if wanted == path:
            if path in paths:
                return path
            raise ConfigurationError(
                f"{OVERRIDE}={wanted}: this processor cannot run it", remedy=f"Use one of: {', '.join(paths)}."
            )
    raise ConfigurationError(f"{OVERRIDE}={wanted}: no such path", remedy=f"Use one of: {', '.join(paths)}.")


class _Vector(types.Type):
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"gf128x{lanes}")


_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BY_TAG = {types.uint8: _Vector(1), types.uint16: _Vector(4)}


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, front_end: Any) -> None:
        super().__init__(manager, front_end, _llvm(front_end))


def _llvm(vector: Any) -> Any:
    return ir.VectorType(_I64, 2 * vector.lanes)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _shuffle(builder: Any, left: Any, right: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_I32, len(places)), places))


@intrinsic
def lanes(typing_context: Any, tag: Any) -> Any:
    """Elements of a vector, a constant."""
    count = _BY_TAG[tag].lanes

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_I64, count)

    return types.int64(tag), generate


@intrinsic
def load(typing_context: Any, tag: Any, array: Any, index: Any) -> Any:
    """A vector from words ``index ..`` of a uint64 array."""
    vector = _BY_TAG[tag]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _pointer(context, builder, signature.args[1], args[1], args[2], _llvm(vector))
        return builder.load(at, align=8)

    return vector(tag, array, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _pointer(context, builder, signature.args[0], args[0], args[1], _llvm(signature.args[2]))
        builder.store(args[2], at, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def spread(typing_context: Any, tag: Any, array: Any, index: Any) -> Any:
    """One element, words ``index`` and ``index + 1``, in every lane."""
    vector = _BY_TAG[tag]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = ir.VectorType(_I64, 2)
        value = builder.load(_pointer(context, builder, signature.args[1], args[1], args[2], pair), align=8)
        return _shuffle(builder, value, value, [0, 1] * vector.lanes)

    return vector(tag, array, types.intp), generate


@intrinsic
def xor(typing_context: Any, left: Any, right: Any) -> Any:
    """Sum in the field."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.xor(*args)

    return left(left, right), generate


def _multiply(builder: Any, left: Any, right: Any, halves: int) -> Any:
    """64 x 64 -> 128 bits in each lane; bit 0 (4) of ``halves`` takes the upper half of ``left`` (``right``)."""
    kind = left.type
    name = "llvm.x86.pclmulqdq" + (".512" if kind.count == 8 else "")
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, kind, _I8]), name)
    return builder.call(function, [left, right, ir.Constant(_I8, halves)])


def _up(builder: Any, value: Any) -> Any:
    """Times x^64, what overflows dropped: the lower halves move up, zeros follow."""
    zero = ir.Constant(value.type, [0] * value.type.count)
    half = value.type.count
    return _shuffle(builder, zero, value, [p for i in range(0, half, 2) for p in (i, half + i)])


def _down(builder: Any, value: Any) -> Any:
    """The upper halves, as lower ones."""
    zero = ir.Constant(value.type, [0] * value.type.count)
    half = value.type.count
    return _shuffle(builder, value, zero, [p for i in range(0, half, 2) for p in (i + 1, half + i + 1)])


def _fold(builder: Any) -> Any:
    return lambda kind: ir.Constant(kind, [0x87, 0] * (kind.count // 2))


@intrinsic
def multiply_by(typing_context: Any, value: Any, factor: Any, raised: Any) -> Any:
    """``value * factor`` with ``raised = factor * x^64`` at hand: five carry-less multiplications.

    ``value = u + v x^64`` gives ``u factor + v raised``; of that only the part above x^128 is folded, at once.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, factor, raised = args
        low = builder.xor(_multiply(builder, value, factor, 0x00), _multiply(builder, value, raised, 0x01))
        middle = builder.xor(_multiply(builder, value, factor, 0x10), _multiply(builder, value, raised, 0x11))
        folded = _multiply(builder, middle, _fold(builder)(value.type), 0x01)
        return builder.xor(builder.xor(low, _up(builder, middle)), folded)

    return value(value, factor, raised), generate


@intrinsic
def multiply(typing_context: Any, left: Any, right: Any) -> Any:
    """``left * right``: schoolbook on halves, then two folds."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left, right = args
        fold = _fold(builder)(left.type)
        low, high = _multiply(builder, left, right, 0x00), _multiply(builder, left, right, 0x11)
        middle = builder.xor(_multiply(builder, left, right, 0x01), _multiply(builder, left, right, 0x10))
        low = builder.xor(low, _up(builder, middle))
        high = builder.xor(high, _down(builder, middle))
        # high = h0 + h1 x^64 stands at x^128: first h1, whose fold reaches into h0's place.
        first = _multiply(builder, high, fold, 0x01)
        low = builder.xor(low, _up(builder, first))
        high = builder.xor(high, _down(builder, first))
        return builder.xor(low, _multiply(builder, high, fold, 0x00))

    return left(left, right), generate


def _lane_shuffle(places: list[int]) -> Any:
    """Shuffle of 128-bit lanes of two vectors of four."""
    words = [2 * p + half for p in places for half in (0, 1)]

    @intrinsic
    def shuffle(typing_context: Any, left: Any, right: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            # A kernel for single elements never comes here, but is compiled.
            return _shuffle(builder, *args, words) if args[0].type.count == 8 else args[0]

        return left(left, right), generate

    return shuffle


lower_lanes = _lane_shuffle([0, 1, 4, 5])
upper_lanes = _lane_shuffle([2, 3, 6, 7])
even_lanes = _lane_shuffle([0, 2, 4, 6])
odd_lanes = _lane_shuffle([1, 3, 5, 7])


def field_product(left: int, right: int) -> int:
    """``left * right`` in the field, from the definition (slow; for tables and tests)."""
    result = 0
    while right:
        if right & 1:
            result ^= left
        right >>= 1
        left <<= 1
        if left >> 128:
            left ^= POLYNOMIAL
    return result


@cache
def cantor_basis(count: int) -> tuple[int, ...]:
    """``b_0 = 1`` and ``b_i^2 + b_i = b_(i-1)``: solved by linear algebra over F2. Source: Cantor 1989."""
    pivots: dict[int, tuple[int, int]] = {}
    for i in range(128):
        source = 1 << i
        image = field_product(source, source) ^ source
        while image:
            top = image.bit_length() - 1
            if top not in pivots:
                pivots[top] = (image, source)
                break
            image, source = image ^ pivots[top][0], source ^ pivots[top][1]
    basis = [1]
    while len(basis) < count:
        rest, solution = basis[-1], 0
        while rest:
            image, source = pivots[rest.bit_length() - 1]
            rest, solution = rest ^ image, solution ^ source
        basis.append(solution)
    return tuple(basis)
