"""A rounding method outside the package: to the nearest, in the scale that just covers the weights."""

from __future__ import annotations

import numpy as np

from hwptq.quant.layer_rounding import Retarget, Rounded, RoundingMethod, RoundingProblem
from hwptq.quant.rounding import nearest


class Covering(RoundingMethod):
    """No weight is clipped."""

    name = "covering"

    def solve(self, problem: RoundingProblem, retarget: Retarget | None = None) -> Rounded:
        reach = np.abs(problem.target / problem.factor).max(axis=2)
        scale = problem.limited(np.where(reach > 0, reach, 1.0) / problem.qmax)
        return nearest(problem.target, scale, problem.qmax, problem.factor), scale
