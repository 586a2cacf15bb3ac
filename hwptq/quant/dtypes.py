"""The dtypes of quantized tensors; int4 is held as int8."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class IntegerDtype:
    """A signed integer of `bits` bits."""

    name: str
    bits: int

    @property
    def qmin(self) -> int:
        return -(2 ** (self.bits - 1))

    @property
    def qmax(self) -> int:
        return 2 ** (self.bits - 1) - 1


INT8 = IntegerDtype("int8", 8)
INT4 = IntegerDtype("int4", 4)
_BY_NAME = {d.name: d for d in (INT8, INT4)}


def integer_dtype(name: str) -> IntegerDtype:
    """ "int8" or "int4". Raises ValueError for any other."""
    if name not in _BY_NAME:
        raise ValueError(f"no integer dtype {name!r}; known are {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def bits_of(dtype: str) -> int:
    """The width of any dtype: "int4" -> 4, "float8_e4m3fn" -> 8, "bfloat16" -> 16."""
    digits = re.search(r"\d+", dtype)
    if digits is None:
        raise ValueError(f"{dtype!r} does not tell its width")
    return int(digits[0])
