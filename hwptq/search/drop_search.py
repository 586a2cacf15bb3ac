"""--max-drop: the cheapest assignment of bit widths whose emitted code still holds it.

Where the device is not here, the model of its arithmetic, if there is one, runs instead of the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hwptq.backends.backend import backend_of
from hwptq.bitwidths.belief import believed_drop
from hwptq.bitwidths.budget import Budget
from hwptq.data.dataset import Dataset, Sample
from hwptq.errors import InputError
from hwptq.evaluate.steps import Steps
from hwptq.executors.executor import executor_for
from hwptq.formats import Pair
from hwptq.passes.stored_bytes import stored_bytes
from hwptq.pipeline.ir_dump import IrDump
from hwptq.pipeline.stages import Graphs, Prepared, insert, lower
from hwptq.pipeline.step import Job
from hwptq.report.accuracy import drop, load_metric
from hwptq.report.verify import emulates, run_emitted

from .choose import BitWidths, Chooser, searches, wished

#: The range between the least and the greatest bytes of weights is searched in so many steps.
STEPS = 16
#: Steps from a choice that does not hold as measured to the next to look at; the last reaches the end.
_STRIDES = (1, 1, 2, 4, STEPS)


@dataclass(frozen=True)
class Lost:
    """Points that a choice loses: as measured, and as float32 believes where top-1 is measured."""

    measured: float
    believed: float | None = None


def bit_widths(
    prepared: Prepared, job: Job, outputs: tuple[str, ...], evaluation: Dataset
) -> BitWidths | None:
    """The dtypes of each layer, as the options wish; None where they have no wish.

    outputs: of the model; evaluation: what --max-drop is measured on. Raises InputError or BudgetError.
    """
    if not wished(job.options):
        return None
    chooser = Chooser(prepared, job)
    if searches(job.options) and chooser.free:
        assert job.options.max_drop is not None
        trial = Trial(prepared, job, outputs, evaluation)
        return cheapest_within(chooser, trial.loss, job.options.max_drop)
    return chooser.choose(job.options.dtype_budget)


def cheapest_within(chooser: Chooser, loss: Callable[[BitWidths], Lost], most: float) -> BitWidths:
    """The choice with the fewest bytes of weights, or cycles where the target saves those, to a 16th of their
    range, that loses at most `most` points.

    Every choice looked at is the best one for its cost, and `loss` runs its code. Bisection: as a rule the
    dearer loses less. Hits of a few hundred samples rise and fall from choice to choice, so where top-1 is
    measured the bisection goes by what float32 believes (belief.py), and from the cheapest choice that holds
    by it on to dearer ones, until one holds as measured too. The cheapest that was seen to hold is taken; the
    highest precision is the last resort, and taken unseen.
    """
    kind = chooser.target.max_drop_saves
    tried: dict[tuple[Pair, ...], tuple[float, Lost]] = {}  # neighbouring budgets can have one choice

    def choose(step: int) -> BitWidths:
        return chooser.choose(budget_at(chooser, step))

    seen: set[int] = set()

    def lost(step: int) -> Lost:
        seen.add(step)
        widths = choose(step)
        chosen = tuple(widths.pairs.values())
        if chosen not in tried:
            tried[chosen] = chooser.costs.total(kind, widths.pairs), loss(widths)
        return tried[chosen][1]

    def seems_to_hold(step: int) -> bool:
        found = lost(step)
        return (found.measured if found.believed is None else found.believed) <= most

    def holds(step: int) -> bool:
        return lost(step).measured <= most

    low, step = -1, STEPS  # `low` is too cheap, `step` seems to hold
    while step - low > 1:
        middle = 0 if low < 0 and step == STEPS else (low + step) // 2
        low, step = (low, middle) if seems_to_hold(middle) else (middle, step)
    for further in _STRIDES:
        if step >= STEPS or holds(step):
            break
        step = min(step + further, STEPS)
    step = min(filter(holds, tuple(seen)), default=STEPS)
    return replace(choose(step), tried=tuple((cost, found.measured) for cost, found in tried.values()))


def budget_at(chooser: Chooser, step: int) -> Budget:
    """Step 0 … STEPS of the range that is searched: from the cheapest choice to the highest precision.

    Rounded up, so that the first step is feasible and the last is all.
    """
    kind = chooser.target.max_drop_saves
    least, most = chooser.least(kind), chooser.costs.highest(kind)
    value = least + (most - least) * step / STEPS
    return Budget(kind, float(np.ceil(value)) if kind == "weights" else value * (1 + 1e-9))


class Trial:
    """Runs the code of one choice after another on the same data. Keeps the outputs of float32.

    Attributes, of the last run: accuracy (as in the report), weight_bytes of its program.
    """

    def __init__(self, prepared: Prepared, job: Job, outputs: tuple[str, ...], data: Dataset):
        reason = None if job.options.executor else backend_of(job.target).why_not_run()
        self._emulated = reason is not None and emulates(job.target)
        if reason and not self._emulated:
            raise InputError(f"--max-drop needs code that runs here ({reason}); or give a --budget")
        self._prepared, self._job = prepared, replace(job, dump=IrDump())
        self._target, self._progress = job.target, job.progress
        self._outputs, self._data = outputs, data
        self._float32 = Steps(prepared.float32)
        self._exact: list[list[np.ndarray]] = []
        self.accuracy: dict[str, Any] = {}
        self.weight_bytes = 0

    def loss(self, widths: BitWidths) -> Lost:
        """What the emitted code of a choice, or what stands in for it, loses against float32."""
        graphs = lower(insert(widths.recorded(self._prepared), self._job), self._job)
        score = load_metric(self._job.options.metric)
        labels: list[Any] = []
        answers: list[int] = []
        run = self._emulate if self._emulated else self._run
        with self._progress.stage("search"):
            for i, (sample, emitted) in enumerate(run(graphs)):
                if i == len(self._exact):
                    self._exact.append(self._float32.run(sample.inputs))
                score.add(sample.label, {"float32": self._exact[i], "emitted": emitted})
                labels.append(sample.label)
                answers.append(int(emitted[0].argmax()))
        self.accuracy = score.report()
        lost = drop(self.accuracy)
        if lost is None:
            raise InputError("--max-drop needs labels or a --metric; or give a --budget")
        if self.accuracy["metric"] != "top1":
            return Lost(lost)
        outputs = np.concatenate([arrays[0] for arrays in self._exact[: len(labels)]])
        return Lost(lost, believed_drop(outputs, np.asarray(labels), np.asarray(answers)))

    def _run(self, graphs: Graphs) -> Iterator[tuple[Sample, list[np.ndarray]]]:
        with TemporaryDirectory(prefix="hwptq-") as folder:
            backend = backend_of(self._target)
            program = backend.build_program(graphs.kernels, self._outputs, "trial", Path(folder))
            self.weight_bytes = program.weight_bytes
            with closing(executor_for(program, self._job.options.executor)) as running:
                for sample, emitted in run_emitted(running, self._data, self._progress):
                    assert emitted is not None
                    yield sample, emitted

    def _emulate(self, graphs: Graphs) -> Iterator[tuple[Sample, list[np.ndarray]]]:
        reference = Steps(graphs.integer)
        self.weight_bytes = stored_bytes(graphs.kernels, self._target)
        for sample in self._progress.track(self._data, self._data.count):
            yield sample, reference.run(sample.inputs)
