"""Two instructions on words of 64 bits that numba has no name for: counting ones, and depositing bits into places."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from common.kernels.clmul import compiled_for

_I64 = ir.IntType(64)
_DEPOSIT = "llvm.x86.bmi.pdep.64"


@njit(cache=True, nogil=True)
def deposit_slowly(bits: np.uint64, places: np.uint64) -> np.uint64:
    """The slow twin of :func:`deposit`, and what processors without the instruction do."""
    one, out = np.uint64(1), np.uint64(0)
    while places:
        place = places & (~places + one)
        places ^= place
        out |= place if bits & one else np.uint64(0)
        bits >>= one
    return out


@intrinsic
def ones(typing_context: Any, word: Any) -> Any:
    """How many bits of a word are 1."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), generate


@intrinsic
def deposit(typing_context: Any, bits: Any, places: Any) -> Any:
    """The lowest bits of ``bits``, in order, at the places where ``places`` has ones; zero elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not compiled_for().get("bmi2", False):
            return context.compile_internal(builder, deposit_slowly.py_func, signature, args)
        kind = ir.FunctionType(_I64, [_I64, _I64])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, _DEPOSIT), args)

    return types.uint64(types.uint64, types.uint64), generate
