"""Simple CUDA kernels: one thread for each element of the output, or for a word of neighbouring ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, cast, constant
from hwptq.tir.kernel import TensorType

THREADS = 256
#: The attribute of a PrimFunc that is bound to blocks and threads already, and which pipeline lowers it.
PIPELINE = "hwptq.pipeline"
LIMIT = 2**31  # elements of a tensor: offsets are int32
_INTEGERS = ("int8", "int16")
_IN_WORDS = {"float8_e4m3fn": 4, "int8": 4, "int16": 2}  # how many of a dtype make a word of 32 bits


def flat_kernel(
    inputs: Sequence[TensorType],
    out: TensorType,
    attributes: Mapping[str, Any],
    element: Callable[..., Expr],
) -> tvm.tirx.PrimFunc:
    """(inputs…, out) with out[i] = element(i, inputs…), the tensors as Flat in row-major order.

    Raises ValueError for a tensor of 2^31 elements or more: offsets are int32.
    """
    tensors = [*inputs, out]
    for t in tensors:
        if prod(t.shape) >= LIMIT:
            raise ValueError(f"a tensor of shape {t.shape} is too large for 32-bit offsets")
    size = prod(out.shape)
    with IRBuilder() as builder, T.prim_func():
        T.func_name("kernel")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, PIPELINE: "s_tir", **attributes})
        names = [f"in{i}" for i in range(len(inputs))] + ["out"]
        params = [T.arg(name, T.buffer(t.shape, t.dtype)) for name, t in zip(names, tensors, strict=True)]
        flat = [
            Flat(T.decl_buffer((prod(t.shape),), t.dtype, data=p.data), t.dtype, prod(t.shape))
            for p, t in zip(params, tensors, strict=True)
        ]
        each = _IN_WORDS.get(out.dtype, 1)  # elements of a thread
        each = 1 if size % each else each
        with (
            T.thread_binding(-(-size // (each * THREADS)), thread="blockIdx.x") as block,
            T.thread_binding(THREADS, thread="threadIdx.x") as thread,
        ):
            at = block * THREADS + thread
            with T.If(at < size // each), T.Then():
                if each == 1:
                    flat[-1].store(at, element(at, *flat[:-1]))
                else:
                    words = Flat(
                        T.decl_buffer((size // each,), "uint32", data=params[-1].data),
                        *("uint32", size // each),
                    )
                    elements = [element(at * each + e, *flat[:-1]) for e in range(each)]
                    words.store(at, _word(elements, out.dtype))
    return builder.get().without_attr("global_symbol")


def _word(elements: list[Expr], dtype: str) -> Expr:
    """Neighbouring elements in one uint32, so that a warp stores 128 bytes at once."""
    found, bits = constant(0, "uint32"), 32 // len(elements)
    for i, element in enumerate(elements):
        if dtype in _INTEGERS:
            part = cast(T.bitwise_and(cast(element, "int32"), constant(2**bits - 1, "int32")), "uint32")
        else:
            part = cast(T.reinterpret("uint8", element), "uint32")
        found = T.bitwise_or(found, T.shift_left(part, constant(bits * i, "uint32")))
    return found


def register(begin: float, dtype: str = "float32") -> Flat:
    """A register that holds `begin`."""
    found = Flat(T.alloc_buffer((1,), dtype, scope="local"), dtype, 1)
    found.store(0, constant(begin, dtype))
    return found


def real(value: float) -> Expr:
    """A float32 constant; numbers that Python prints, and infinities."""
    return constant(value, "float32")


def value_of(tensor: Flat, offset: Expr, zero_point: int = 0) -> Expr:
    """What an element of a tensor in e4m3, bfloat16, int8 or int16 stands for, as float32."""
    if tensor.dtype in _INTEGERS:
        return cast(cast(tensor.load(offset), "int32") - zero_point, "float32")
    return cast(tensor.load(offset), "float32")


def stored(value: Expr, dtype: str, zero_point: int = 0) -> Expr:
    """A float32 as float_values.store has it.

    The chip's conversions round to nearest even and keep NaN; that to e4m3 saturates.
    """
    if dtype not in _INTEGERS:
        return cast(value, dtype)
    whole, limits = T.nearbyint(value) + real(zero_point), np.iinfo(dtype)
    return cast(cast(clamped(whole, int(limits.min), int(limits.max)), "int32"), dtype)


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """a * b + c, rounded once."""
    return T.call_pure_extern("float32", "__fmaf_rn", a, b, c)


def multiply(a: Expr, b: Expr) -> Expr:
    """a * b, never joined with an addition."""
    return T.call_pure_extern("float32", "__fmul_rn", a, b)


def add(a: Expr, b: Expr) -> Expr:
    """a + b, never joined with a multiplication."""
    return T.call_pure_extern("float32", "__fadd_rn", a, b)


def divide(a: Expr, b: Expr) -> Expr:
    """a / b, rounded once; never a product with a reciprocal."""
    return T.call_pure_extern("float32", "__fdiv_rn", a, b)


def clamped(value: Expr, lo: float, hi: float) -> Expr:
    """`value` in [lo, hi]; NaN becomes lo. Without a bound there is no operation."""
    if lo > -float("inf"):
        value = T.max(value, real(lo))
    return T.min(value, real(hi)) if hi < float("inf") else value


def indices(at: Expr, shape: Sequence[int]) -> list[Expr]:
    """The index of each axis of element number `at`."""
    found: list[Expr] = []
    for extent in reversed(shape[1:]):
        found.insert(0, T.floormod(at, extent))
        at = T.floordiv(at, extent)
    return [at, *found]
