"""--max-drop: the cheapest assignment of bit widths whose emitted code still holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np

from hwptq.bitwidths.budget import Budget
from hwptq.data.dataset import Dataset
from hwptq.formats import Pair
from hwptq.pipeline.stages import Prepared
from hwptq.pipeline.step import Job

from .choose import BitWidths, Chooser
from .known_trials import Lost
from .trial import Trial
from .trial_line import Tried, trial_line
from .wishes import searches, wished

#: The range between the least and the greatest bytes of weights is searched in so many steps.
STEPS = 16
#: Steps from a choice that does not hold as measured to the next to look at; the last reaches the end.
_STRIDES = (1, 1, 2, 4, STEPS)
#: Told of choices that may be tried next, the first of all.
Foresee = Callable[[Sequence[BitWidths]], None]
#: Told of each trial when it is over.
Tell = Callable[[Tried], None]


def bit_widths(
    prepared: Prepared, job: Job, outputs: tuple[str, ...], validation: Dataset
) -> BitWidths | None:
    """The dtypes of each layer, as the options wish; None where they have no wish.

    outputs: of the model; validation: what a search for --max-drop measures on. Raises InputError or
    BudgetError.
    """
    if not wished(job.options):
        return None
    chooser = Chooser(prepared, job)
    if searches(job.options) and (chooser.free or chooser.offers_wide):
        assert job.options.max_drop is not None
        trial = Trial(prepared, job, outputs, validation)

        def wider() -> Chooser | None:
            return Chooser(prepared, job, wide=True) if chooser.offers_wide else None

        def tell(tried: Tried) -> None:
            job.progress.tell(trial_line(tried))

        found = cheapest_within(chooser, trial.loss, job.options.max_drop, trial.foresee, wider, tell)
        return replace(found, tried_on="evaluation" if job.options.validation_data is None else "validation")
    return chooser.choose(job.options.dtype_budget)


def cheapest_within(
    chooser: Chooser,
    loss: Callable[[BitWidths], Lost],
    most: float,
    foresee: Foresee = lambda choices: None,
    wider: Callable[[], Chooser | None] = lambda: None,
    tell: Tell = lambda tried: None,
) -> BitWidths:
    """The choice with the fewest bytes of weights, or cycles where the target saves those, to a 16th of their
    range, that loses at most `most` points.

    Every choice looked at is the best one for its cost, and `loss` runs its code. As a rule the dearer loses
    less, so an interval is narrowed down: where a metric of the user's is measured, at the choice that should
    just hold if points are lost in proportion to noise, which takes fewer trials than halves. Hits of a few
    hundred samples rise and fall from choice to choice, so where top-1 is measured the bisection goes by what
    float32 believes (belief.py), and from the cheapest choice that holds by it on to dearer ones, until one
    holds as measured too. The cheapest that was seen to hold is taken; the highest precision is the last
    resort, and taken unseen, unless there are `wider` dtypes: then it is tried, and where it loses too much
    the fewest cycles with those are looked for. foresee: told before each step of the search what it looks
    at, and what the next one may.
    """
    trials = _Trials(chooser, loss, foresee, tell)
    step = trials.cheapest(most)
    if step == STEPS and (other := wider()) is not None and trials.lost(STEPS).measured > most:
        trials = _Trials(other, loss, foresee, tell)
        step = trials.cheapest(most) if trials.lost(STEPS).measured <= most else STEPS
    return replace(trials.choose(step), tried=trials.costs_and_drops())


class _Trials:
    """The choices of a chooser, step by step from the cheapest, and what they were seen to lose."""

    def __init__(
        self, chooser: Chooser, loss: Callable[[BitWidths], Lost], foresee: Foresee, tell: Tell
    ):  # fmt: skip
        self._chooser, self._loss, self._foresee, self._tell = chooser, loss, foresee, tell
        self._chosen: dict[int, BitWidths] = {}
        #: By what was chosen, as neighbouring budgets can have one choice.
        self._tried: dict[tuple[Pair, ...], tuple[float, Lost]] = {}
        self._untold: dict[tuple[Pair, ...], float] = {}  # seconds of the trials that nobody was told of
        self._seen: set[int] = set()

    def cheapest(self, most: float) -> int:
        """The cheapest step that was seen to lose at most `most` points; STEPS where none was."""

        def seems_to_hold(step: int) -> bool:
            found = self.lost(step)
            return (found.measured if found.believed is None else found.believed) <= most

        def holds(step: int) -> bool:
            return self.lost(step).measured <= most

        low, step = -1, STEPS  # `low` is too cheap, `step` seems to hold
        while step - low > 1:
            between = self._between(low, step, most)
            after = [self._between(*ends, most) for ends in ((low, between), (between, step)) if _open(*ends)]
            unseen = [s for s in (between, *after) if s not in self._seen]
            self._foresee([self.choose(s) for s in unseen])
            low, step = (low, between) if seems_to_hold(between) else (between, step)
            self._report(between, most, step - low - 1)
        for further in _STRIDES:
            if step >= STEPS or holds(step):
                break
            self._report(step, most, STEPS - step)
            step = min(step + further, STEPS)
        self._report(step, most, 0)
        return min(filter(holds, tuple(self._seen)), default=STEPS)

    def choose(self, step: int) -> BitWidths:
        if step not in self._chosen:
            self._chosen[step] = self._chooser.choose(budget_at(self._chooser, step))
        return self._chosen[step]

    def lost(self, step: int) -> Lost:
        self._seen.add(step)
        widths = self.choose(step)
        chosen = tuple(widths.pairs.values())
        if chosen not in self._tried:
            cost = self._chooser.costs.total(self._chooser.saves, widths.pairs)
            begin = perf_counter()
            self._tried[chosen] = cost, self._loss(widths)
            self._untold[chosen] = perf_counter() - begin
        return self._tried[chosen][1]

    def _report(self, step: int, most: float, still_open: int) -> None:
        """Tell of the trial of a step, if it was one and nobody was told."""
        pairs = self.choose(step).pairs
        chosen = tuple(pairs.values())
        if (seconds := self._untold.pop(chosen, None)) is not None:
            number, lost = list(self._tried).index(chosen) + 1, self._tried[chosen][1]
            kind = self._chooser.costs, self._chooser.saves
            self._tell(Tried(number, pairs, *kind, lost, seconds, most, still_open))

    def _between(self, low: int, high: int, most: float) -> int:
        """The next step to look at. The cheapest first, as nothing else may be needed; then the first that
        should hold, by the line through what its neighbours lose against their noise; the middle where top-1
        is believed, or nothing is known of them."""
        if low < 0 and high == STEPS:
            return 0
        if low not in self._seen or self.lost(low).believed is not None:
            return (low + high) // 2
        worse = self.choose(low).noise, self.lost(low).measured
        better = (self.choose(high).noise, self.lost(high).measured) if high in self._seen else (0.0, 0.0)
        if worse[0] <= better[0] or worse[1] <= better[1]:
            return (low + high) // 2
        slope = (worse[1] - better[1]) / (worse[0] - better[0])
        allowed = better[0] + (most - better[1]) / slope
        steps = range(low + 1, high)
        return next((step for step in steps if self.choose(step).noise <= allowed), steps[-1])

    def costs_and_drops(self) -> tuple[tuple[float, float], ...]:
        return tuple((cost, found.measured) for cost, found in self._tried.values())


def _open(low: int, high: int) -> bool:
    return high - low > 1


def budget_at(chooser: Chooser, step: int) -> Budget:
    """Step 0 … STEPS of the range that is searched: from the cheapest choice to the highest precision.

    Rounded up, so that the first step is feasible and the last is all.
    """
    kind = chooser.saves
    least, most = chooser.least(kind), chooser.costs.highest(kind)
    value = least + (most - least) * step / STEPS
    return Budget(kind, float(np.ceil(value)) if kind == "weights" else value * (1 + 1e-9))
