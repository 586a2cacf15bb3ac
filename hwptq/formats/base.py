"""What every number format offers. A tensor in a format holds codes; real = decode(code)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

#: A scale or zero point: one number, or an array that is broadcast against the tensor.
Parameter = Any


@dataclass(frozen=True)
class Format(ABC):
    """A number format of `bits` bits.

    short: what it is called in `--precision`, both for weights and for activations; "" = only by its bits.
    """

    name: str
    bits: int
    short: str = ""

    is_float: ClassVar[bool]

    @property
    @abstractmethod
    def qmin(self) -> float:
        """The smallest finite value of a code, without scale and zero point."""

    @property
    @abstractmethod
    def qmax(self) -> float:
        """The largest one."""

    @property
    @abstractmethod
    def precision(self) -> int:
        """How many bits tell neighbouring values apart, the sign's among them: 8 in int8, 5 in e4m3 with its
        implied one, 9 in bfloat16."""

    @property
    @abstractmethod
    def held(self) -> str:
        """The dtype that holds it in a graph and in numpy; int8 for int4."""

    @property
    @abstractmethod
    def zero_dtype(self) -> type[np.generic]:
        """The dtype of the zero point of R.quantize and R.dequantize."""

    @property
    def widened(self) -> bool:
        """Whether the dtype that holds it has more values than it."""
        return self.held != self.name

    @property
    def quantized(self) -> bool:
        """Whether tensors of a quantized graph may hold its codes."""
        return True

    @property
    def opset(self) -> int:
        """The first opset of ONNX that quantizes to what holds it."""
        return 19

    @property
    def scaled(self) -> bool:
        """Whether tensors in it have a scale."""
        return True

    @property
    def has_zero(self) -> bool:
        """Whether zero has a code, which activations need."""
        return True

    @property
    def asymmetric(self) -> bool:
        """Whether an activation in it has a zero point. Where steps are fine, it gains nothing."""
        return not self.is_float and self.bits <= 8

    @abstractmethod
    def encode(
        self, x: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0, narrow: bool = False
    ) -> np.ndarray:
        """float32 -> the nearest codes, ties to even, what is too large saturated; dtype `held`.

        narrow: from -qmax on, so that the codes are symmetric. (0.26, scale 0.1) in int8 -> 3.
        """

    @abstractmethod
    def decode(self, held: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0) -> np.ndarray:
        """Codes of dtype `held` -> float32: exact, then one product with the scale."""

    @abstractmethod
    def codes(self, held: np.ndarray) -> np.ndarray:
        """The place of each value among all `2 ** bits` codes, as a table has them; int64."""

    @abstractmethod
    def from_codes(self, index: np.ndarray) -> np.ndarray:
        """The inverse of `codes`: dtype `held`."""

    def points(self, scale: Parameter = 1.0, zero: Parameter = 0) -> np.ndarray:
        """The value of every code in the order of `codes`: float32 [2 ** bits]."""
        return self.decode(self.from_codes(np.arange(2**self.bits)), scale, zero)

    @abstractmethod
    def bit_patterns(self, held: np.ndarray) -> np.ndarray:
        """The bits of each value as an unsigned number; int64."""

    @abstractmethod
    def from_bit_patterns(self, patterns: np.ndarray) -> np.ndarray:
        """The inverse of `bit_patterns`: dtype `held`."""

    def packed_bytes(self, count: int) -> int:
        """Bytes that `count` values take, packed."""
        return -(-count * self.bits // 8)

    def pack(self, held: np.ndarray) -> np.ndarray:
        """Values in memory order as uint8 [packed_bytes], the first in the lowest bits.

        int4 [1, -2, 3] -> [0xE1, 0x03].
        """
        patterns = self.bit_patterns(np.asarray(held)).reshape(-1)
        if 8 % self.bits:
            bits = (patterns[:, None] >> np.arange(self.bits)) & 1
            return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little")
        each = 8 // self.bits
        fields = np.pad(patterns, (0, -len(patterns) % each)).astype(np.uint8).reshape(-1, each)
        return np.bitwise_or.reduce(fields << self._places(each), axis=1).astype(np.uint8)

    def unpack(self, packed: np.ndarray, count: int) -> np.ndarray:
        """The first `count` values of what `pack` made: dtype `held` [count]."""
        if 8 % self.bits:
            bits = np.unpackbits(packed, count=count * self.bits, bitorder="little").reshape(count, self.bits)
            return self.from_bit_patterns((bits.astype(np.int64) << np.arange(self.bits)).sum(axis=1))
        every = np.arange(256)[:, None] >> self._places(8 // self.bits) & 2**self.bits - 1
        values = np.ascontiguousarray(self.from_bit_patterns(every))  # of each byte
        as_one = values.view(f"u{values.itemsize * values.shape[1]}").reshape(-1)
        return as_one[packed].view(values.dtype)[:count]

    def _places(self, each: int) -> np.ndarray:
        """The lowest bit of each of the values that share a byte."""
        return (np.arange(each) * self.bits).astype(np.uint8)

    def accumulator(self, other: Format) -> str:
        """The dtype of a sum of products with values of `other`: "int32", "int64" or "float32".

        A layer that can bound its sum may use int32 where int64 stands here. How a sum of floats is rounded
        is the device's: see quant/float_sums.py.
        """
        if self.is_float or other.is_float:
            return "float32"
        return "int32" if self.bits + other.bits <= 16 else "int64"
