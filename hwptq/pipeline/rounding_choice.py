"""Which rounding of weights suits one of two towers: that by which its pairs lose least.

Rounding makes up for the outputs of each layer; which embeddings change places with which, no layer knows. So
the integers of each method answer for samples that their weights were not rounded by, and the pairs decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import tvm

from hwptq.cache.content import JSON
from hwptq.evaluate.partner import Partner
from hwptq.evaluate.steps import Steps
from hwptq.options import Options

from .ir_dump import IrDump
from .step import Batches, Job, State

#: Methods that are tried beside that of the recipe: what is quick, and what errs in other ways.
OTHERS = ("gptq", "nearest")
#: The most samples that are held out: a quarter, if there are fewer; and how many there must be.
HELD_OUT, FEWEST = 32, 4
#: Standard errors of the mean by which another method must lose less.
_SURE = 2.0


def rounding_by_pairs(now: State, job: Job, integers_of: Callable[[Job], tvm.IRModule]) -> str:
    """The method for a prepared float module: the recipe's, unless pairs lose less by another one.

    integers_of: the integer module that a job makes of it. The recipe's too where there are fewer than 16
    samples, or their number is not known, or it rounds to the nearest.
    """
    usual, data, partner = job.options.recipe.rounding, job.samples, job.partner
    number = min(HELD_OUT, (data.count or 0) // 4) if data.divisible else 0
    if partner is None or usual == "nearest" or number < FEWEST:
        return usual
    seen, held = data.part(0, len(data) - number), data.part(len(data) - number, None)
    samples = Batches(held, job.progress)
    methods = [usual, *(m for m in OTHERS if m != usual)]

    def choose() -> str:
        assert now.float32 is not None
        exact = _first_outputs(now.float32, samples)
        tries = (replace(job, data=seen, options=_with(job.options, m), dump=IrDump()) for m in methods)
        losses = [_losses(partner, exact, _first_outputs(integers_of(each), samples)) for each in tries]
        return methods[least(losses)]

    options = job.options
    causes = (
        now.float32, now.stats, Batches(seen, job.progress), samples, job.target, options.recipe,
        options.weight_granularity, options.keep_float, partner,
    )  # fmt: skip
    return str(job.cache.recall("rounding", causes, JSON, choose))


def least(losses: list[np.ndarray]) -> int:
    """Which of several [samples] loses least on average; the first, unless another is surely better."""
    best = int(np.argmin([each.mean() for each in losses]))
    gain = losses[0] - losses[best]
    return best if gain.mean() > _SURE * gain.std() / len(gain) ** 0.5 else 0


def _with(options: Options, method: str) -> Options:
    """The same with a rounding that nothing else decides."""
    return replace(options, recipe=replace(options.recipe, rounding=method), partner=None)


def _first_outputs(module: tvm.IRModule, samples: Batches) -> list[np.ndarray]:
    steps = Steps(module)
    return [steps.run(inputs)[0] for inputs in samples]


def _losses(partner: Partner, exact: list[np.ndarray], found: list[np.ndarray]) -> np.ndarray:
    """Of each sample, in nats."""
    return np.array([partner.loss(a, b) for a, b in zip(exact, found, strict=True)])
