"""Integers in two's complement or unsigned: real = (code - zero) * scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Format, Parameter
from .registry import register


@dataclass(frozen=True)
class IntegerFormat(Format):
    """An integer of `bits` bits, at most 16, held in the narrowest dtype of whole bytes.

    narrow: without its least value, as devices have it that must be able to negate any.
    """

    signed: bool = True
    narrow: bool = False

    is_float: ClassVar[bool] = False

    @property
    def qmin(self) -> int:
        return self.narrow - 2 ** (self.bits - 1) if self.signed else 0

    @property
    def qmax(self) -> int:
        return 2 ** (self.bits - self.signed) - 1

    @property
    def quantized(self) -> bool:
        return self.signed  # unsigned ones become signed when a model is read

    @property
    def widened(self) -> bool:
        return self.narrow or super().widened

    @property
    def precision(self) -> int:
        return self.bits

    @property
    def held(self) -> str:
        return f"{'' if self.signed else 'u'}int{8 if self.bits <= 8 else 16}"

    @property
    def opset(self) -> int:
        return 10 if self.bits <= 8 else 21

    @property
    def zero_dtype(self) -> type[np.generic]:
        return np.dtype(self.held).type

    def encode(
        self, x: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0, narrow: bool = False
    ) -> np.ndarray:
        """As Format says; NaN becomes qmin. The quotient is rounded to float32 before it is rounded."""
        steps = np.rint(np.asarray(x, np.float32) / np.asarray(scale, np.float32))
        low = np.float32(-self.qmax if narrow else self.qmin)
        q = steps + np.asarray(zero, np.float32)
        return np.minimum(np.fmax(q, low), np.float32(self.qmax)).astype(self.held)

    def decode(self, held: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0) -> np.ndarray:
        distance = np.asarray(held).astype(np.int32) - np.asarray(zero).astype(np.int32)
        return distance.astype(np.float32) * np.asarray(scale, np.float32)

    def codes(self, held: np.ndarray) -> np.ndarray:
        return np.asarray(held).astype(np.int64) - self.qmin

    def from_codes(self, index: np.ndarray) -> np.ndarray:
        return (np.asarray(index, np.int64) + self.qmin).astype(self.held)

    def bit_patterns(self, held: np.ndarray) -> np.ndarray:
        return np.asarray(held).astype(np.int64) & (2**self.bits - 1)

    def from_bit_patterns(self, patterns: np.ndarray) -> np.ndarray:
        wrapped = np.where(patterns > self.qmax, patterns - 2**self.bits, patterns)
        return wrapped.astype(self.held)


INT8 = register(IntegerFormat("int8", 8))
INT4 = register(IntegerFormat("int4", 4))
INT3 = register(IntegerFormat("int3", 3))
INT2 = register(IntegerFormat("int2", 2))
#: As fine as a table can be that fits a cache: what functions behind a layer read.
INT12 = register(IntegerFormat("int12", 12))
INT16 = register(IntegerFormat("int16", 16))
UINT8 = register(IntegerFormat("uint8", 8, signed=False))
