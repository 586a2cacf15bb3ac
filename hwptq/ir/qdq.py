"""The steps between real values and their codes: R.quantize and R.dequantize, and casts.

A tensor in a format without a scale, as bfloat16, is a cast to it and one back to float32 in a QDQ graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.formats import is_cast

from .dataflow import constant, op_name


def quantizes(value: Any) -> bool:
    """Whether `value` gives the codes of a float32 tensor."""
    name = op_name(value)
    return name == "quantize" or (name == "astype" and is_cast(str(value.ty.dtype)))


def dequantizes(value: Any) -> bool:
    """Whether `value` gives the float32 values of codes."""
    name = op_name(value)
    return name == "dequantize" or (name == "astype" and is_cast(str(value.args[0].ty.dtype)))


def scale_and_zero(value: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Scales and zero points of such a step; None where they are no constants."""
    if op_name(value) == "astype":
        return np.ones((), np.float32), np.zeros((), np.int8)
    return constant(value.args[1]), constant(value.args[2])
