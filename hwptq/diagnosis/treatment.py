"""What remedies do: predicted in float for all of them, measured in integers for those that promise most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm

from hwptq.data.dataset import Sample
from hwptq.errors import HwptqError
from hwptq.evaluate.downstream import on_threads
from hwptq.formats import format_of
from hwptq.options import Options

from .places import Part, Place
from .remedies import Remedy
from .simulation import Simulation
from .trials import Trials
from .yardstick import Effect, Yardstick

#: Work of a multiply-accumulate in float, and with 16 bits, in those of 8: rough, to rank remedies by.
_FLOAT_WORK, _WIDE_WORK = 8.0, 2.0
#: What once more the work of the code may cost, as a part of the loss that it restores.
_WORTH_OF_WORK = 0.1
#: A remedy that is to restore less is none.
_LEAST = 0.02


@dataclass(frozen=True)
class Treated:
    """A remedy and what it does.

    price: extra work of the code, roughly, as a share of what it has; predicted and measured: the effect at
    the outputs, None where nobody looked; restored: the part of the loss that is back, 1 = all.
    """

    remedy: Remedy
    arguments: tuple[str, ...]
    price: float
    predicted: Effect | None = None
    measured: Effect | None = None
    restored: float | None = None

    @property
    def worth(self) -> float:
        """What it restores, less what its work is worth; sorts remedies."""
        return (self.restored or 0.0) - _WORTH_OF_WORK * self.price

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "why": self.remedy.why,
            "arguments": list(self.arguments),
            "extra_work": round(self.price, 3),
            "predicted": self.predicted.row() if self.predicted else None,
            "measured": self.measured.row() if self.measured else None,
            "restored": None if self.restored is None else round(self.restored, 4),
        }


class Treatment:
    """Tries remedies on one model.

    before: what `options` lose, measured on all samples of the yardstick.
    """

    def __init__(
        self, trials: Trials, options: Options, found: Sequence[Place], yardstick: Yardstick, before: Effect,
        few: int,
    ):  # fmt: skip
        self._trials, self._options, self._found = trials, options, found
        self._yardstick, self._few, self._before = yardstick, yardstick.first(few), before
        self._float32, self._plan = trials.planned(options)
        self._now = self._simulated(self._float32, found)

    def predicted(self, remedy: Remedy) -> Treated | None:
        """A remedy with the effect that a simulation shows; None where it is none, or can't be taken."""
        options = remedy.change.applied(self._options)
        arguments = tuple(remedy.change.arguments(self._options))
        if remedy.change.fits_weights:
            return Treated(remedy, arguments, 0.0)
        if remedy.expected is not None:
            return self._expected(remedy, arguments, 0.0, remedy.expected)
        try:
            float32, plan = self._trials.planned(options)
        except (HwptqError, ValueError):  # this model or this target does not allow it
            return None
        price = self._work(plan) / max(self._work(self._plan), 1.0) - 1
        if float32 is self._float32:
            plan = self._with_rounded_weights(plan)
        noise = self._simulated(float32, plan) / max(self._now, 1e-30) * self._before.noise
        found = self._expected(remedy, arguments, price, noise)
        return found if (found.restored or 0.0) > _LEAST else None

    def measured(self, treated: Treated) -> Treated:
        """The same with the effect of its integers."""
        quantized = self._trials.quantized(treated.remedy.change.applied(self._options))
        effect = self._yardstick.module(self._trials.integers(quantized))
        return replace(treated, measured=effect, restored=self._yardstick.restored(self._before, effect))

    def _expected(self, remedy: Remedy, arguments: tuple[str, ...], price: float, noise: float) -> Treated:
        effect = Effect(noise, None)
        restored = self._yardstick.restored(self._before, effect)
        return Treated(remedy, arguments, price, effect, None, restored)

    def _simulated(self, float32: tvm.IRModule, plan: Sequence[Place]) -> float:
        """The noise at the outputs, on few samples."""

        def work(bench: Simulation, sample: Sample) -> dict[str, list[np.ndarray]]:
            return {"plan": bench.rounded(sample.inputs, Part.ALL)}

        runs = on_threads(lambda: Simulation(float32, plan), work, self._few.samples)
        return self._few.effects(runs)["plan"].noise

    def _with_rounded_weights(self, plan: Sequence[Place]) -> list[Place]:
        """A plan for the same float module, with the layers of now where it plans the same weights."""
        planned, now = {p.var: p.layer for p in self._plan}, {p.var: p.layer for p in self._found}
        found = []
        for place in plan:
            before = planned.get(place.var)
            alike = place.layer and before and place.layer.same_weights(before)
            found.append(replace(place, layer=now.get(place.var)) if alike else place)
        return found

    def _work(self, plan: Sequence[Place]) -> float:
        """Of a model's code, in multiply-accumulates of 8 bits. A node in float is a thousandth of all."""
        layers = {p.name: p.layer for p in plan if p.layer}
        total, work = 0.0, 0.0
        for place in self._plan:
            total += place.macs
            layer = layers.get(place.name)
            wide = layer is not None and max(format_of(d).bits for d in layer.pair) > 8
            in_float = layer is None and place.layer is not None
            work += place.macs * (_FLOAT_WORK if in_float else _WIDE_WORK if wide else 1.0)
        gone = {p.name for p in self._plan} - {p.name for p in plan}
        return work + 1e-3 * total * len(gone)
