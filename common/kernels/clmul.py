"""Carry-less multiplication on vectors of elements of GF(2^64), eight or two at a time.

The field is F2[x] / (x^64 + x^4 + x^3 + x + 1). Every kernel takes a *tag* whose type names the width: ``WIDE`` (512
bits, ``vpclmulqdq``) or ``NARROW`` (128 bits, ``pclmulqdq``); numba compiles and caches one version for each. LLVM
aborts the process if told to multiply so on a processor that cannot, so :func:`active_path` reads the features first.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, register_model

from common.errors import ConfigurationError

Path = Literal["clmul512", "clmul128", "fft"]
PATHS: tuple[Path, ...] = ("clmul512", "clmul128", "fft")
#: The environment variable that overrides the choice (read by :mod:`common.node.compute`): one of ``PATHS``.
OVERRIDE = "QKD_CLMUL"
_forced: Path | None = None
#: Tags: the type, not the value, names the width.
NARROW, WIDE = np.uint8(2), np.uint16(8)

_NEEDS = {"clmul512": ("pclmul", "vpclmulqdq", "avx512f"), "clmul128": ("pclmul", "sse2"), "fft": ()}


def compiled_for() -> dict[str, bool]:
    """Features that numba compiles for: its own settings (``NUMBA_CPU_NAME``, ``NUMBA_CPU_FEATURES``) or the host's.

    Raises
    ------
    ConfigurationError : the settings name what this processor lacks: anything compiled so would end the process.
    """
    if config.CPU_FEATURES is not None:
        names = str(config.CPU_FEATURES).split(",")
        said = {name[1:]: name[0] == "+" for name in names if name[:1] in ("+", "-")}
    elif config.CPU_NAME == "generic":
        said = {}
    else:
        return dict(binding.get_host_cpu_features())
    host = binding.get_host_cpu_features()
    missing = [name for name, on in said.items() if on and not host.get(name, False)]
    if missing:
        raise ConfigurationError(
            f"NUMBA_CPU_FEATURES names {', '.join(missing)}, which this processor lacks", remedy="Unset it."
        )
    return said


def available_paths() -> tuple[Path, ...]:
    """The paths that this processor can run, fastest first; ``fft`` always can."""
    features = compiled_for()
    return tuple(path for path in PATHS if all(features.get(name, False) for name in _NEEDS[path]))


def force_path(wanted: str | None) -> None:
    """Make :func:`active_path` answer ``wanted`` in this process; None or an empty name means the fastest.

    Every path gives the same bits, so the choice is one of the process, made where its environment is read.

    Raises
    ------
    ConfigurationError : it names something unknown or something that this processor cannot run.
    """
    global _forced
    _forced, paths = None, available_paths()
    if not wanted:
        return
    for path in paths:
        if path == wanted:
            _forced = path
            return
    fault = "this processor cannot run it" if wanted in PATHS else "no such path"
    raise ConfigurationError(f"{OVERRIDE}={wanted}: {fault}", remedy=f"Use one of: {', '.join(paths)}.")


def active_path() -> Path:
    """The path that is used: the one that was forced, else the fastest."""
    return _forced or available_paths()[0]


class _Vector(types.Type):
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"gf64x{lanes}")


_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BY_TAG = {types.uint8: _Vector(2), types.uint16: _Vector(8)}


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, front_end: Any) -> None:
        super().__init__(manager, front_end, ir.VectorType(_I64, front_end.lanes))


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
    """A vector of the words from ``index`` on of a uint64 array, or of a uint32 array, widened."""
    vector = _BY_TAG[tag]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type = signature.args[1]
        bits = array_type.dtype.bitwidth
        at = _pointer(context, builder, array_type, args[1], args[2], ir.VectorType(ir.IntType(bits), vector.lanes))
        value = builder.load(at, align=bits // 8)
        return value if bits == 64 else builder.zext(value, ir.VectorType(_I64, vector.lanes))

    return vector(tag, array, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector to a uint64 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _pointer(context, builder, signature.args[0], args[0], args[1], args[2].type)
        builder.store(args[2], at, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def spread(typing_context: Any, tag: Any, word: Any) -> Any:
    """One word in every lane."""
    vector = _BY_TAG[tag]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        single = builder.bitcast(args[1], ir.VectorType(_I64, 1))
        return _shuffle(builder, single, single, [0] * vector.lanes)

    return vector(tag, types.uint64), generate


@intrinsic
def xor(typing_context: Any, left: Any, right: Any) -> Any:
    """Sum in the field."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.xor(*args)

    return left(left, right), generate


def _multiply(builder: Any, left: Any, right: Any, which: int) -> Any:
    if "clmul128" not in available_paths():
        raise ConfigurationError("this processor has no carry-less multiplication", remedy=f"Unset {OVERRIDE}.")
    kind = left.type
    name = "llvm.x86.pclmulqdq" + (".512" if kind.count == 8 else "")
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, kind, _I8]), name)
    return builder.call(function, [left, right, ir.Constant(_I8, which)])


def _half_product(which: int) -> Any:
    @intrinsic
    def product(typing_context: Any, left: Any, right: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            left, right = args
            if left.type.count == 2 or "clmul512" in available_paths():
                return _multiply(builder, left, right, which)
            # Without the wide instruction four narrow ones: slower, but LLVM is never asked for what is not there.
            parts = []
            for i in range(0, left.type.count, 2):
                one, other = (_shuffle(builder, whole, whole, [i, i + 1]) for whole in (left, right))
                parts.append(_multiply(builder, one, other, which))
            while len(parts) > 1:
                places = list(range(2 * parts[0].type.count))
                parts = [_shuffle(builder, parts[i], parts[i + 1], places) for i in range(0, len(parts), 2)]
            return parts[0]

        return left(left, right), generate

    return product


#: Products of 127 bits of the even (odd) lanes, each in a pair of lanes.
even_products, odd_products = _half_product(0x00), _half_product(0x11)


@intrinsic
def reduce(typing_context: Any, even: Any, odd: Any) -> Any:
    """Products of even and of odd lanes, or sums of such, to elements.

    With a product ``low + high x^64`` (``high`` of degree at most 62) and ``x^64 = (1 + x)(1 + x^3)``, ``high`` times
    that overflows by the three bits ``o = (high >> 60) + (high >> 61)``, which fold in the same way: so ``high + o``,
    times ``(1 + x)(1 + x^3)`` without what overflows, is added to ``low``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        even, odd = args
        kind = even.type

        def up(value: Any, count: int) -> Any:
            return builder.shl(value, ir.Constant(kind, [count] * kind.count))

        def down(value: Any, count: int) -> Any:
            return builder.lshr(value, ir.Constant(kind, [count] * kind.count))

        pairs = range(0, kind.count, 2)
        low = _shuffle(builder, even, odd, [p for i in pairs for p in (i, kind.count + i)])
        high = _shuffle(builder, even, odd, [p for i in pairs for p in (i + 1, kind.count + i + 1)])
        high = builder.xor(high, builder.xor(down(high, 60), down(high, 61)))
        high = builder.xor(high, up(high, 1))
        return builder.xor(builder.xor(low, high), up(high, 3))

    return even(even, odd), generate


@njit(inline="always")
def multiply(left, right):  # type: ignore[no-untyped-def]
    """``left * right`` in the field, lane by lane."""
    return reduce(even_products(left, right), odd_products(left, right))


def in_registers(ranges: list[tuple[int, int, int]], size: int) -> Any:
    """A function ``(tag, array, at, apart)`` that adds ranges among ``size`` vectors ``apart`` words apart."""

    @intrinsic
    def add(typing_context: Any, tag: Any, array: Any, at: Any, apart: Any) -> Any:
        vector = _BY_TAG[tag]

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.VectorType(_I64, vector.lanes)

            def pointer(number: int) -> Any:
                index = builder.add(args[2], builder.mul(args[3], ir.Constant(_I64, number)))
                return _pointer(context, builder, signature.args[1], args[1], index, kind)

            held = [builder.load(pointer(i), align=8) for i in range(size)]
            for to, begin, count in ranges:
                for i in range(count):
                    held[to + i] = builder.xor(held[to + i], held[begin + i])
            for i in range(size):
                builder.store(held[i], pointer(i), align=8)
            return context.get_dummy_value()

        return types.void(tag, array, types.intp, types.intp), generate

    return add


@intrinsic
def transpose(
    typing_context: Any, tag: Any, source: Any, at: Any, apart: Any, out: Any, to: Any, out_apart: Any
) -> Any:
    """As many vectors as there are lanes, ``apart`` words from each other, transposed: lanes become vectors."""
    vector = _BY_TAG[tag]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, count = ir.VectorType(_I64, vector.lanes), vector.lanes

        def pointer(which: int, number: int) -> Any:
            index = builder.add(args[which + 1], builder.mul(args[which + 2], ir.Constant(_I64, number)))
            return _pointer(context, builder, signature.args[which], args[which], index, kind)

        rows = [builder.load(pointer(1, i), align=8) for i in range(count)]
        distance = 1
        while distance < count:
            for i in range(count):
                if not i & distance:
                    left, right = rows[i], rows[i + distance]
                    keep = [j if not j & distance else count + j - distance for j in range(count)]
                    pass_on = [j + distance if not j & distance else count + j for j in range(count)]
                    rows[i] = _shuffle(builder, left, right, keep)
                    rows[i + distance] = _shuffle(builder, left, right, pass_on)
            distance *= 2
        for i in range(count):
            builder.store(rows[i], pointer(4, i), align=8)
        return context.get_dummy_value()

    return types.void(tag, source, types.intp, types.intp, out, types.intp, types.intp), generate


@intrinsic
def add_range(typing_context: Any, array: Any, to: Any, begin: Any, count: Any) -> Any:
    """``array[to : to + count] ^= array[begin : begin + count]``, ranges apart; any unsigned words, any alignment."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type = signature.args[0]
        bits = array_type.dtype.bitwidth
        step = 256 // bits

        def add(index: Any, kind: Any) -> None:
            target, source = (
                _pointer(context, builder, array_type, args[0], builder.add(args[which], index), kind)
                for which in (1, 2)
            )
            total = builder.xor(builder.load(target, align=bits // 8), builder.load(source, align=bits // 8))
            builder.store(total, target, align=bits // 8)

        whole = builder.and_(args[3], ir.Constant(_I64, -step))
        with cgutils.for_range_slice(builder, ir.Constant(_I64, 0), whole, ir.Constant(_I64, step), _I64) as (i, _):
            add(i, ir.VectorType(ir.IntType(bits), step))
        with cgutils.for_range_slice(builder, whole, args[3], ir.Constant(_I64, 1), _I64) as (i, _):
            add(i, ir.IntType(bits))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp), generate
