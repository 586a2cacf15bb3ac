"""--max-drop: the cheapest assignment of bit widths whose emitted code still holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from hwptq.bitwidths.budget import Budget
from hwptq.data.dataset import Dataset
from hwptq.formats import Pair
from hwptq.pipeline.stages import Prepared
from hwptq.pipeline.step import Job

from .choose import BitWidths, Chooser, searches, wished
from .trial import Lost, Trial

#: The range between the least and the greatest bytes of weights is searched in so many steps.
STEPS = 16
#: Steps from a choice that does not hold as measured to the next to look at; the last reaches the end.
_STRIDES = (1, 1, 2, 4, STEPS)
#: Told of choices that may be tried next, the first of all.
Foresee = Callable[[Sequence[BitWidths]], None]


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
        return cheapest_within(chooser, trial.loss, job.options.max_drop, trial.foresee)
    return chooser.choose(job.options.dtype_budget)


def cheapest_within(
    chooser: Chooser, loss: Callable[[BitWidths], Lost], most: float, foresee: Foresee = lambda choices: None
) -> BitWidths:
    """The choice with the fewest bytes of weights, or cycles where the target saves those, to a 16th of their
    range, that loses at most `most` points.

    Every choice looked at is the best one for its cost, and `loss` runs its code. Bisection: as a rule the
    dearer loses less. Hits of a few hundred samples rise and fall from choice to choice, so where top-1 is
    measured the bisection goes by what float32 believes (belief.py), and from the cheapest choice that holds
    by it on to dearer ones, until one holds as measured too. The cheapest that was seen to hold is taken; the
    highest precision is the last resort, and taken unseen. foresee: told before each step of the bisection
    what it looks at, and what the next one may.
    """
    kind = chooser.target.max_drop_saves
    tried: dict[tuple[Pair, ...], tuple[float, Lost]] = {}  # neighbouring budgets can have one choice

    @cache
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
        middle = _between(low, step)
        after = [_between(*ends) for ends in ((low, middle), (middle, step)) if ends[1] - ends[0] > 1]
        foresee([choose(s) for s in (middle, *after) if s not in seen])
        low, step = (low, middle) if seems_to_hold(middle) else (middle, step)
    for further in _STRIDES:
        if step >= STEPS or holds(step):
            break
        step = min(step + further, STEPS)
    step = min(filter(holds, tuple(seen)), default=STEPS)
    return replace(choose(step), tried=tuple((cost, found.measured) for cost, found in tried.values()))


def _between(low: int, step: int) -> int:
    """The next step to look at: the cheapest first, as nothing else may be needed."""
    return 0 if low < 0 and step == STEPS else (low + step) // 2


def budget_at(chooser: Chooser, step: int) -> Budget:
    """Step 0 … STEPS of the range that is searched: from the cheapest choice to the highest precision.

    Rounded up, so that the first step is feasible and the last is all.
    """
    kind = chooser.target.max_drop_saves
    least, most = chooser.least(kind), chooser.costs.highest(kind)
    value = least + (most - least) * step / STEPS
    return Budget(kind, float(np.ceil(value)) if kind == "weights" else value * (1 + 1e-9))
