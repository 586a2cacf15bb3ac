"""Quantizes one model in many ways: what they have in common is done once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tvm

from hwptq import passes
from hwptq.formats import parse_precision
from hwptq.options import Options
from hwptq.pipeline.stages import Prepared, Quantized, insert, integers, prepare
from hwptq.pipeline.step import Job
from hwptq.search.choose import Chooser
from hwptq.search.wishes import check_wishes

from .places import Place, places

#: Calibration samples that weights are rounded on. Ranges are those of all samples.
ROUNDED_ON = 16


class Trials:
    """The imported float module of a job, quantized by other options than the job's."""

    def __init__(self, module: tvm.IRModule, job: Job):
        self._module, self._job = module, job
        self._prepared: dict[tuple[Any, ...], Prepared] = {}

    def prepared(self, options: Options) -> Prepared:
        """The float module that these options quantize, and what its tensors hold."""
        recipe = options.recipe
        granularity = options.weight_granularity if recipe.equalize == "auto" else None
        widened = recipe.widen and options.precision is None
        ranged = options.weight_granularity, options.keep_float  # what is widened depends on these too
        key = (
            recipe.smooth, recipe.equalize, recipe.absorb, recipe.depthwise, recipe.observer, granularity,
            widened, ranged if widened else None,
        )  # fmt: skip
        if key not in self._prepared:
            self._prepared[key] = prepare(self._module, self._of(options))
        return self._prepared[key]

    def planned(self, options: Options) -> tuple[tvm.IRModule, list[Place]]:
        """(the float module, its places), each weight rounded to the nearest: quick, and a little too bad."""
        prepared = self._with_dtypes(options)
        insertion = passes.InsertQDQ(
            self._job.target, prepared.stats, options.weight_granularity, options.keep_float
        )
        qdq = tvm.ir.transform.Sequential([insertion])(prepared.float32)
        float32 = self.prepared(options).float32  # of the same vars, and the same object for like options
        return float32, places(float32, qdq)

    def quantized(self, options: Options) -> Quantized:
        """As a compilation quantizes, but for weights rounded on ROUNDED_ON samples at most."""
        return insert(self._with_dtypes(options), self._of(options, ROUNDED_ON))

    def integers(self, quantized: Quantized) -> tvm.IRModule:
        """What emitted code computes, to the bit."""
        return integers(quantized, self._job)

    def _with_dtypes(self, options: Options) -> Prepared:
        """A prepared module on which the dtypes are recorded that the options wish."""
        check_wishes(options, self._job.target, quantized=False)
        if not (options.precision or options.dtype_budget or options.exclude):
            return self.prepared(options)
        prepared = self.prepared(options)
        if options.dtype_budget:
            return Chooser(prepared, self._of(options)).choose(options.dtype_budget).recorded(prepared)
        step = passes.AssignBitWidths(
            self._job.target,
            prepared.stats,
            precision=parse_precision(options.precision) if options.precision else None,
            keep=options.exclude,
            lower_ends=options.lower_ends,
            granularity=options.weight_granularity,
            exclude=options.keep_float,
        )
        return replace(prepared, float32=tvm.ir.transform.Sequential([step])(prepared.float32))

    def _of(self, options: Options, most: int | None = None) -> Job:
        data = self._job.data
        data = data.take(most) if data is not None and most is not None else data
        return replace(self._job, options=replace(options, max_drop=None), data=data)
