"""What integers of a device stand for: the section [numerics] of a descriptor."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwptq.quant.fixed_point import ROUNDINGS, STEPS
from hwptq.quant.qparams import Grid

from .fields.about import about


@dataclass(frozen=True)
class Numerics:
    """What integers of the device stand for, and how it rounds."""

    rounding: str = field(
        default=STEPS,
        metadata=about(
            "how sums are brought to the scale of the result: steps, a product rounded to 32 bits, then a "
            "rounding shift; or the product rounded once: half-up, half-away from zero, half-even, or "
            "double, as TOSA's RESCALE with DOUBLE_ROUND",
            choices=ROUNDINGS,
        ),
    )
    scales: str = field(
        default="any",
        metadata=about(
            "which scales tensors can have: any, or power-of-two ones, so that a shift is all that is needed",
            choices=("any", "power-of-two"),
        ),
    )
    activations: str = field(
        default="asymmetric",
        metadata=about(
            "whether activations have a zero point, or are symmetric: 0 is 0",
            choices=("asymmetric", "symmetric"),
        ),
    )
    codes: str = field(
        default="full",
        metadata=about(
            "full: activations have all codes of their dtype; narrow: its least one is left out, -127 … 127. "
            "Weights are narrow unless they come in a file that another tool has quantized",
            choices=("full", "narrow"),
        ),
    )
    weights: str = field(
        default="symmetric",
        metadata=about(
            "asymmetric: int8 weights have a zero point, so that they use all codes where they lie on one "
            "side; those of depthwise and grouped convolutions stay symmetric",
            choices=("symmetric", "asymmetric"),
        ),
    )
    bias_bits: int = field(
        default=32,
        metadata=about(
            "bits of a bias in steps of the products, without the share of zero points; scales of weights "
            "are made large enough for it, and a layer of a file whose bias has more stays in float",
            low=12,
            high=64,
        ),
    )

    @property
    def grid(self) -> Grid:
        """Which scales, zero points, codes and biases layers can have."""
        powers, symmetric, narrow = (
            self.scales == "power-of-two", self.activations == "symmetric", self.codes == "narrow"
        )  # fmt: skip
        return Grid(powers, symmetric, narrow, self.weights == "asymmetric", self.bias_bits)
