"""Where a quantization loses, and by what: in the whole model by parts, and place by place.

One place alone is rounded in a network that else is float32: that is the error it adds by itself. Small
errors are almost independent, so their powers at the outputs add up. Where errors are large, or where rounded
weights make up for the rounding of what they multiply, they don't; so each part is looked at twice, alone and
as the only one that is spared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tvm

from hwptq.data.dataset import Sample
from hwptq.evaluate.downstream import on_threads
from hwptq.report.accuracy import Sqnr

from .places import PARTS, Part, Place
from .simulation import Simulation
from .yardstick import Effect, Yardstick, decibel, mean_noise

Track = Callable[[Iterable[Any], int], Iterable[Any]]
#: Places that are looked at closely.
CLOSELY = 8


@dataclass(frozen=True)
class PartLoss:
    """What a part loses in the whole model: where nothing else is lost, and where all but it is."""

    part: Part
    alone: Effect
    all_but: Effect


@dataclass(frozen=True)
class PlaceLoss:
    """What is lost at one place.

    own_db: SQNR of what the node yields; noise: relative power at the outputs, the mean of them. Of places
    that are looked at closely: alone: at the outputs, on all samples; all_but: noise where it is the only
    place that is spared; parts: noise of each part alone.
    """

    place: Place
    own_db: float | None
    noise: float
    alone: Effect | None = None
    all_but: float | None = None
    parts: Mapping[Part, float] = field(default_factory=dict)

    @property
    def sqnr_db(self) -> float | None:
        """At the outputs, in dB; None for no noise."""
        return decibel(self.noise)

    def row(self) -> dict[str, Any]:
        """For JSON."""
        layer, rounding = self.place.layer, self.place.rounding
        return {
            "name": self.place.name,
            "op": self.place.kind or "input",
            "weight": layer.pair[1] if layer else None,
            "result": rounding.dtype.name if rounding else None,
            "isolated_sqnr_db": self.own_db,
            "output_sqnr_db": self.sqnr_db,
            "metric": self.alone.metric if self.alone else None,
            "spared_output_sqnr_db": None if self.all_but is None else decibel(self.all_but),
            "parts": {part.word: decibel(noise) for part, noise in self.parts.items()},
        }


def split(
    float32: tvm.IRModule, found: Sequence[Place], yardstick: Yardstick, track: Track
) -> tuple[Effect, list[PartLoss]]:
    """(what quantization in float loses, the same by parts)."""
    kinds: dict[str, Part] = {"all": Part.ALL}
    for part in PARTS:
        kinds |= {f"{part.name}": part, f"all but {part.name}": Part.ALL & ~part}

    def work(bench: Simulation, sample: Sample) -> dict[str, list[np.ndarray]]:
        return {kind: bench.rounded(sample.inputs, parts) for kind, parts in kinds.items()}

    runs = on_threads(lambda: Simulation(float32, found), work, yardstick.samples)
    effects = yardstick.effects(track(runs, len(yardstick.samples)))
    parts = [PartLoss(p, effects[f"{p.name}"], effects[f"all but {p.name}"]) for p in PARTS]
    return effects["all"], parts


def by_place(
    float32: tvm.IRModule, found: Sequence[Place], samples: Sequence[Sample], track: Track
) -> list[PlaceLoss]:
    """What every place loses alone on `samples`, the most first."""

    def work(bench: Simulation, sample: Sample) -> list[tuple[Sqnr, list[Sqnr]]]:
        exact = bench.exact(sample.inputs)
        outputs = bench.outputs(exact)
        rows = []
        for place in found:
            value, changed = bench.alone(place, exact, Part.ALL)
            rows.append((_sqnr(exact[place.var], value), list(map(_sqnr, outputs, changed))))
        return rows

    runs = on_threads(lambda: Simulation(float32, found), work, samples)
    rows = list(track(runs, len(samples)))
    losses = []
    for place, *of_samples in zip(found, *rows, strict=True):
        own = sum((own for own, _ in of_samples), Sqnr())
        outputs = [sum(by_sample, Sqnr()) for by_sample in zip(*(o for _, o in of_samples), strict=True)]
        losses.append(PlaceLoss(place, own.db, mean_noise(outputs)))
    return sorted(losses, key=lambda loss: -loss.noise)


def closely(
    float32: tvm.IRModule, found: Sequence[Place], worst: Sequence[PlaceLoss], yardstick: Yardstick, few: int,
    track: Track,
) -> list[PlaceLoss]:  # fmt: skip
    """Some losses with all that can be said of them; parts and all_but on the first `few` samples.

    found: all places of the model.
    """

    def work(bench: Simulation, sample: Sample) -> dict[str, list[np.ndarray]]:
        exact = bench.exact(sample.inputs)
        return {f"{i}": bench.alone(loss.place, exact, Part.ALL)[1] for i, loss in enumerate(worst)}

    def look(bench: Simulation, sample: Sample) -> dict[str, list[np.ndarray]]:
        exact, outputs = bench.exact(sample.inputs), {}
        for i, loss in enumerate(worst):
            outputs[f"all but {i}"] = bench.rounded(sample.inputs, Part.ALL, [loss.place])
            for part in loss.place.parts:
                outputs[f"{i} {part.name}"] = bench.alone(loss.place, exact, part)[1]
        return outputs

    def run(work: Any, yardstick: Yardstick) -> dict[str, Effect]:
        runs = on_threads(lambda: Simulation(float32, found), work, yardstick.samples)
        return yardstick.effects(track(runs, len(yardstick.samples)))

    effects, looks = run(work, yardstick), run(look, yardstick.first(few))
    return [
        replace(
            loss,
            alone=effects[f"{i}"],
            all_but=looks[f"all but {i}"].noise,
            parts={part: looks[f"{i} {part.name}"].noise for part in loss.place.parts},
        )
        for i, loss in enumerate(worst)
    ]


def _sqnr(exact: np.ndarray, found: np.ndarray) -> Sqnr:
    sqnr = Sqnr()
    sqnr.add(exact, found)
    return sqnr
