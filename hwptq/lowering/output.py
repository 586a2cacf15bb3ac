"""How the result of a node is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwptq.formats import INT8, Format
from hwptq.ir.provenance import Origin, Part

from .operand import Operand


@dataclass(frozen=True)
class Output:
    """The format of the result and what it needs, where it comes from, and how it is computed.

    in_floats: in float32, by the operators on floats; else in integers. A result in float32 is not quantized
    (scale 1). weight_bits, activation_bits: of the node's weight and input; bias_bits: that a bias may have;
    weight_group: int4 weights hold
    factors of groups of channels. limits: codes to clamp to, if not all. residual: what a layer adds.
    """

    origin: Origin  # of the result, were it float32
    scale: float = 1.0
    zero: int = 0
    format: Format = INT8
    in_floats: bool = False
    limits: tuple[int, int] | None = None
    weight_bits: int = 8
    activation_bits: int = 8
    weight_group: int = 0
    bias_bits: int = 32
    residual: Operand | None = None

    @property
    def real(self) -> bool:
        """Whether the result is float32."""
        return not self.format.quantized

    @property
    def dtype(self) -> str:
        """The dtype of the result."""
        return self.format.held

    @property
    def tensor(self) -> Origin:
        """The origin of the result."""
        return self.origin if self.real else self.origin.with_part(Part.CODES)

    @property
    def image(self) -> Origin:
        """The origin of the result in NHWC."""
        return self.origin.with_part(Part.IMAGE)

    def quantized(self, real: Any) -> np.ndarray:
        """Real values in the format and scale of the result."""
        codes = self.format.encode(real, self.scale, self.zero)
        return codes if self.limits is None else np.clip(codes, *self.limits).astype(codes.dtype)

    def code_bounds(self, low: Any = -np.inf, high: Any = np.inf) -> tuple[int, int]:
        """(lo, hi) of a fused clamp to [low, high], as codes; the widest where they differ by channel."""
        return int(self.quantized(low).min()), int(self.quantized(high).max())

    def real_bounds(self, low: Any = -np.inf, high: Any = np.inf) -> tuple[float, float]:
        """(lo, hi) of a fused clamp to [low, high], in this scale; none where they differ by channel."""
        if np.size(low) > 1 or np.size(high) > 1:
            return -np.inf, np.inf
        scale = np.float32(self.scale)
        return float(np.float32(low) / scale), float(np.float32(high) / scale)

    def channel_bounds(self, low: Any, high: Any, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(lo, hi), each [channels] in the format, of a clamp that differs by channel, else None.

        Rounding is monotonous, so bounds that are rounded as values are give what clamping before it would.
        """
        if np.size(low) == 1 and np.size(high) == 1:
            return None
        lo, hi = (np.broadcast_to(self.quantized(v), (channels,)) for v in (low, high))
        if not self.in_floats and np.ptp(lo.astype(int)) == 0 and np.ptp(hi.astype(int)) == 0:
            return None
        return lo, hi
