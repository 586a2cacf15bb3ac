"""Portable code of operators on floats: a PrimFunc that hands its tensors to the numpy reference.

No CPU has Hopper's accumulator, and TVM's own casts to e4m3 are not exact, so where such a graph runs without
the chip, it runs by the definition of its arithmetic, in the process that compiled it.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from math import prod
from typing import Any

import ml_dtypes  # noqa: F401  # gives numpy the dtype float8_e4m3fn
import numpy as np
import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import TEMPLATE, primfunc
from hwptq.tir.kernel import TensorType

from .operator import ATTRIBUTE, Operator, from_json, to_json

_NAME = "hwptq.evaluate"


def callback(op: Operator, inputs: Sequence[TensorType], out: TensorType) -> tvm.tirx.PrimFunc:
    """The PrimFunc (inputs…, out) of `op`. It carries the operator as the attribute."""
    text = to_json(op)
    types = json.dumps([[t.shape, t.dtype] for t in [*inputs, out]])
    attributes = {ATTRIBUTE: text, TEMPLATE: "callback"}

    def body(*tensors: Any) -> None:
        T.evaluate(T.call_packed(_NAME, text, types, *(t.buffer.data for t in tensors)))

    return primfunc([*inputs, out], attributes, body)


def _evaluate(text: str, types: str, *pointers: ctypes.c_void_p) -> None:
    arrays = [
        _array(pointer, tuple(shape), dtype)
        for pointer, (shape, dtype) in zip(pointers, json.loads(types), strict=True)
    ]
    arrays[-1][...] = from_json(text).reference(*arrays[:-1])


def _array(pointer: ctypes.c_void_p, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The memory behind a pointer."""
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    memory = memoryview((ctypes.c_uint8 * nbytes).from_address(pointer.value or 0))
    return np.frombuffer(memory, np.uint8).view(dtype).reshape(shape)


tvm.register_global_func(_NAME, _evaluate, override=True)
