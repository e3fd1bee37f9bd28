"""Explicit vectors inside numba: 64 lanes of int8 or int16, in LLVM's portable vector operations.

Plain loops over int8 do not vectorise here (run-time alias checks) and are five to ten times slower. Sixty-four lanes
are one register of int8 with AVX-512 and two with AVX2, whose independent halves hide the latency of the check's chain;
elsewhere LLVM splits further.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

#: Lanes of a vector. Every lifting size is a multiple of it.
LANES = 64

_INT8 = ir.VectorType(ir.IntType(8), LANES)
_INT16 = ir.VectorType(ir.IntType(16), LANES)


class _Int8Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"int8x{LANES}")


class _Int16Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"int16x{LANES}")


int8_lanes = _Int8Lanes()
int16_lanes = _Int16Lanes()


@register_model(_Int8Lanes)
class _Int8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, front_end: Any) -> None:
        super().__init__(manager, front_end, _INT8)


@register_model(_Int16Lanes)
class _Int16Model(models.PrimitiveModel):
    def __init__(self, manager: Any, front_end: Any) -> None:
        super().__init__(manager, front_end, _INT16)


def _constant(value: int, kind: Any) -> Any:
    return ir.Constant(kind, [value] * LANES)


def _splat(builder: Any, scalar: Any, kind: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _call(builder: Any, name: str, kind: Any, *arguments: Any) -> Any:
    suffix = "i8" if kind is _INT8 else "i16"
    function_type = ir.FunctionType(kind, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.v{LANES}{suffix}")
    return builder.call(function, list(arguments))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _loader(lanes: Any, kind: Any, align: int) -> Any:
    @intrinsic
    def load(typing_context: Any, array: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            loaded = builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], kind))
            loaded.align = align
            return loaded

        return lanes(array, types.intp), generate

    return load


def _storer(lanes: Any, kind: Any, align: int) -> Any:
    @intrinsic
    def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            stored = builder.store(args[2], _pointer(context, builder, signature.args[0], args[0], args[1], kind))
            stored.align = align
            return context.get_dummy_value()

        return types.void(array, types.intp, lanes), generate

    return store


load8 = _loader(int8_lanes, _INT8, 1)
load16 = _loader(int16_lanes, _INT16, 2)
store8 = _storer(int8_lanes, _INT8, 1)
store16 = _storer(int16_lanes, _INT16, 2)


def _binary(name: str) -> Any:
    @intrinsic
    def operation(typing_context: Any, left: Any, right: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _call(builder, name, _INT8, *args)

        return int8_lanes(int8_lanes, int8_lanes), generate

    return operation


#: Of magnitudes, 0 .. 128.
minimum8 = _binary("umin")
maximum8 = _binary("umax")


@intrinsic
def xor8(typing_context: Any, left: Any, right: Any) -> Any:
    """Bitwise exclusive or (of signs, in the sign bit)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.xor(*args)

    return int8_lanes(int8_lanes, int8_lanes), generate


@intrinsic
def splat8(typing_context: Any, value: Any) -> Any:
    """The same int8 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], _INT8)

    return int8_lanes(types.int8), generate


@intrinsic
def magnitude8(typing_context: Any, value: Any) -> Any:
    """``|value|``, 0 .. 128 unsigned."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function_type = ir.FunctionType(_INT8, [_INT8, ir.IntType(1)])
        function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.abs.v{LANES}i8")
        return builder.call(function, [args[0], ir.Constant(ir.IntType(1), 0)])

    return int8_lanes(int8_lanes), generate


def _average(builder: Any, left: Any, right: Any) -> Any:
    """``(left + right + 1) // 2`` unsigned: one instruction on most processors."""
    total = builder.add(builder.zext(left, _INT16), builder.zext(right, _INT16))
    return builder.trunc(builder.lshr(builder.add(total, _constant(1, _INT16)), _constant(1, _INT16)), _INT8)


@intrinsic
def boxplus8(typing_context: Any, left: Any, right: Any, half_knee: Any) -> Any:
    """``min - (g(|left - right|) - g(left + right)) // 4``, ``g(d) = max(2 * half_knee - d, 0)``; sums up to 255.

    The difference of the two is ``2 * min - max(left + right - 2 * half_knee, 0)``, or 0 where that is negative; what
    is left of ``min`` is then the average, rounded up, of ``min`` and half the other term, also rounded up.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left, right, half_knee = args
        low = _call(builder, "umin", _INT8, left, right)
        more = _call(builder, "usub.sat", _INT8, _average(builder, left, right), half_knee)
        return _average(builder, low, _call(builder, "umin", _INT8, low, more))

    return int8_lanes(int8_lanes, int8_lanes, int8_lanes), generate


@intrinsic
def scale8(typing_context: Any, value: Any, factor: Any) -> Any:
    """``(value * factor + 32) // 64`` for values 0..127 and factors 0..64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = builder.zext(args[0], _INT16)
        product = builder.mul(wide, _splat(builder, args[1], _INT16))
        rounded = builder.lshr(builder.add(product, _constant(32, _INT16)), _constant(6, _INT16))
        return builder.trunc(rounded, _INT8)

    return int8_lanes(int8_lanes, types.int16), generate


@intrinsic
def keep_where_equal8(typing_context: Any, left: Any, right: Any, value: Any) -> Any:
    """Lane by lane: ``value`` where ``left == right``, else 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.and_(builder.sext(builder.icmp_signed("==", args[0], args[1]), _INT8), args[2])

    return int8_lanes(int8_lanes, int8_lanes, int8_lanes), generate


@intrinsic
def negate_where8(typing_context: Any, value: Any, sign: Any) -> Any:
    """Lane by lane: ``-value`` where ``sign < 0``, else ``value``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # (value ^ m) - m with m = -1 where the sign is negative.
        mask = builder.ashr(args[1], _constant(7, _INT8))
        return builder.sub(builder.xor(args[0], mask), mask)

    return int8_lanes(int8_lanes, int8_lanes), generate


@intrinsic
def count_negative(typing_context: Any, value: Any) -> Any:
    """Number of negative lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(LANES)
        bits = builder.bitcast(builder.icmp_signed("<", args[0], _constant(0, _INT8)), word)
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(word, [word]), f"llvm.ctpop.i{LANES}")
        return builder.call(function, [bits])

    return types.int64(int8_lanes), generate


def _narrow(builder: Any, wide: Any) -> Any:
    low = _call(builder, "smin", _INT16, wide, _constant(127, _INT16))
    return builder.trunc(_call(builder, "smax", _INT16, low, _constant(-128, _INT16)), _INT8)


@intrinsic
def narrow(typing_context: Any, value: Any) -> Any:
    """Saturate int16 to int8."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _narrow(builder, args[0])

    return int8_lanes(int16_lanes), generate


@intrinsic
def subtract16(typing_context: Any, wide: Any, small: Any) -> Any:
    """``wide - small`` in int16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sub(args[0], builder.sext(args[1], _INT16))

    return int16_lanes(int16_lanes, int8_lanes), generate


@intrinsic
def add16(typing_context: Any, wide: Any, small: Any) -> Any:
    """``wide + small`` in int16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.add(args[0], builder.sext(args[1], _INT16))

    return int16_lanes(int16_lanes, int8_lanes), generate
