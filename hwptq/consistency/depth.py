"""Where in a tower its noise arises: the layers of its report in their order, a tenth of them at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

TENTHS = 10


@dataclass(frozen=True)
class Stretch:
    """Layers that follow each other: where they end, as a share of all layers in %; the median of their SQNR
    beside float32, dB; the noisiest of them, and its SQNR.
    """

    depth: float
    sqnr_db: float
    noisiest: str
    least_db: float


def noise_by_depth(layers: Sequence[Mapping[str, Any]]) -> tuple[Stretch, ...]:
    """`layers` of a report, as they were measured when the tower was compiled; those that have no noise don't
    count. Ten stretches, or as many as there are layers.
    """
    measured = [(str(row["name"]), float(row["sqnr_db"])) for row in layers if row.get("sqnr_db") is not None]
    count = min(TENTHS, len(measured))
    ends = [len(measured) * (k + 1) // count for k in range(count)]
    return tuple(
        _stretch(measured[first:end], 100 * end / len(measured))
        for first, end in zip([0, *ends], ends, strict=False)
    )


def _stretch(layers: Sequence[tuple[str, float]], depth: float) -> Stretch:
    name, least = min(layers, key=lambda layer: layer[1])
    return Stretch(depth, median(db for _, db in layers), name, least)
