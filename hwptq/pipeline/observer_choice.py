"""Which observer suits a model: ranges that hold all values, or those of the least squared error?

Cutting off rare large values makes the steps of all others finer. Whether the outputs gain by it no tensor
tells: behind SiLU they do, but a large value may be what a detector is there to find. So both are tried on
samples that the ranges were not taken from, weights in float, and the outputs decide, part by part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np
import tvm

from hwptq.calibration import CalibrationStats
from hwptq.evaluate.partner import Partner
from hwptq.ir.dataflow import bindings, main_functions
from hwptq.ir.macs import node_macs
from hwptq.passes.graph.quantizable import assignment
from hwptq.passes.graph.quantization_plan import Choices, QuantizationPlan
from hwptq.passes.graph.rounded_activations import RoundedActivations
from hwptq.targets import Descriptor

#: Samples that ranges are tried on, and the least that ranges are taken from beside them.
HELD_OUT, LEAST_SEEN = 8, 8
#: What all parts of the outputs have to gain on average, in dB, none of them losing: half a bit. Values past
#: those of the samples cost more where ranges are cut, and what is detected is rare: YOLOX-Nano, which gains
#: 1.9 dB here, had a greater mAP without.
WORTH = 3.0
#: Multiply-accumulates for the trials. A sample takes three passes.
_MACS, _PASSES, _FEWEST = 4e10, 3, 3
SAFE, CLOSE = "minmax", "mse"
#: A loss in nats that is told apart from none.
_LEAST = 1e-12


def held_out(count: int | None) -> int:
    """How many of a data set's samples to hold out; 0 where there are too few."""
    return (
        0 if count is None or count < LEAST_SEEN + _FEWEST else min(HELD_OUT, count - LEAST_SEEN, count // 4)
    )


def chosen(
    mod: tvm.IRModule,
    stats: CalibrationStats,
    target: Descriptor,
    samples: Iterable[Mapping[str, np.ndarray]],
    granularity: str | None = None,
    exclude: str | None = None,
    partner: Partner | None = None,
) -> str:
    """SAFE or CLOSE, for a float module. stats: by an observer `auto`, of other samples than these; partner:
    of an embedding, whose pairs decide then.
    """
    macs = sum(node_macs(mod, value) for _, f in main_functions(mod) for _, value in bindings(f))
    few = list(islice(samples, max(int(_MACS / _PASSES / max(macs, 1)), _FEWEST)))
    gains: list[float] = []
    for gv, func in main_functions(mod):
        fitting = [s for s in few if {str(p.name) for p in func.params} <= s.keys()]
        if not fitting:
            continue
        name, choices = str(gv.name_hint), Choices(granularity, exclude, assignment(func))
        trial = RoundedActivations(mod, name, fitting)
        safe, close = (
            _kept(trial, QuantizationPlan(mod, name, target, stats.by(method), choices), partner)
            for method in (SAFE, CLOSE)
        )
        gains += [*(close - safe)]
    return CLOSE if gains and min(gains) >= 0 and float(np.mean(gains)) >= WORTH else SAFE


def _kept(trial: RoundedActivations, plan: QuantizationPlan, partner: Partner | None) -> np.ndarray:
    """What a plan keeps, in dB: the SQNR of each part of the outputs; with a partner one number, of pairs.
    Their loss grows with the power of the noise too, so half a bit is half of it."""
    if partner is None:
        return trial.lost(plan)
    return np.array([-10 * np.log10(max(trial.lost_by_pairs(plan, partner), _LEAST))])
