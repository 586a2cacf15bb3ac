"""Every node quantized alone, for the report of a compilation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import tvm

from hwptq.data.dataset import Dataset
from hwptq.ir.macs import float_macs
from hwptq.progress import Progress

from .losses import by_place
from .places import Place, places

#: Multiply-accumulates that the network may be evaluated with for single places, and bounds of the samples.
_MACS, _SAMPLES = 1e11, (2, 16)


def samples_alone(float32: tvm.IRModule, found: Sequence[Place]) -> int:
    """The number of samples to look at single places with."""
    return within(_MACS / max(1, float_macs(float32)) / max(1, len(found)), _SAMPLES)


def within(count: float, bounds: tuple[int, int]) -> int:
    """A number of samples, held to bounds."""
    return int(min(max(count, bounds[0]), bounds[1]))


def isolated(
    float32: tvm.IRModule, qdq: tvm.IRModule, data: Dataset, progress: Progress
) -> dict[str, dict[str, Any]]:
    """By the label of a node, what the report says of it in `layers`: the SQNR of what it gives, and that of
    the outputs, where it alone is quantized."""
    found = places(float32, qdq)
    with progress.stage("each layer alone"):
        samples = list(islice(data, samples_alone(float32, found)))
        losses = by_place(float32, found, samples, progress.track)
    return {
        loss.place.name: {"isolated_sqnr_db": loss.own_db, "isolated_output_sqnr_db": loss.sqnr_db}
        for loss in losses
    }
