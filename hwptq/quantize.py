"""From a float module to its QDQ form: the steps of a recipe, in their order.

float passes (outputs unchanged) -> calibrate -> InsertQDQ -> passes that repair the weights (QDQ -> QDQ)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tvm

from . import passes
from .calibration import calibrate
from .data import Dataset
from .errors import InputError
from .options import Options
from .progress import Progress
from .targets import Descriptor


@dataclass(frozen=True)
class Quantized:
    """A model before and after quantization; both give named tensors that can be compared."""

    float32: tvm.IRModule
    qdq: tvm.IRModule


class Batches:
    """The inputs of a data set's samples, dicts of arrays of batch 1, shown as they are taken.

    Every iteration reads the data anew: passes that stream over it may do so as often as they need.
    """

    def __init__(self, data: Dataset, progress: Progress):
        self._data, self._progress = data, progress

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for sample in self._progress.track(self._data, self._data.count):
            yield sample.inputs


def fuse(module: tvm.IRModule) -> tvm.IRModule:
    """Float passes: the outputs stay the same."""
    return tvm.ir.transform.Sequential([passes.FoldBatchNorm(), passes.FuseConvRelu()])(module)


def quantize(
    module: tvm.IRModule, target: Descriptor, data: Dataset | None, options: Options, progress: Progress
) -> Quantized:
    """Quantize an imported float module for `target`. Raises InputError for bad or no calibration data.

    A module that another tool has quantized keeps its scales; what it computes in float, with its Q and DQ,
    stands for float32.
    """
    if passes.is_quantized(module):
        normalize = passes.NormalizeQDQ()  # also afterwards: quantize is named after what was fused
        prepared = tvm.ir.transform.Sequential([normalize, passes.FuseConvRelu(), normalize])(module)
        return Quantized(prepared, prepared)
    if data is None:
        raise InputError(
            "the model is in float: give calibration data (or a model with QuantizeLinear nodes)"
        )
    batches, recipe = Batches(data, progress), options.recipe
    float32 = fuse(module)
    if recipe.smooth:
        with progress.stage("smooth"):
            float32 = _apply(passes.SmoothActivations(batches), float32)
    if recipe.equalize:
        with progress.stage("equalize"):
            float32 = _apply(passes.EqualizeCrossLayer(), float32)
    with progress.stage("calibrate"):
        stats = calibrate(float32, batches)
    insert = passes.InsertQDQ(target, stats, options.weight_granularity, options.exclude)
    qdq = _apply(insert, float32)
    if recipe.rounding != "nearest":
        with progress.stage("round weights"):
            rounding = passes.RoundingOptions(recipe.rounding)
            qdq = _apply(passes.RoundWeights(float32, batches, rounding), qdq)
    if recipe.correct_bias:
        with progress.stage("correct bias"):
            qdq = _apply(passes.CorrectBias(float32, batches), qdq)
    return Quantized(float32, qdq)


def _apply(step: tvm.transform.Pass, module: tvm.IRModule) -> tvm.IRModule:
    return tvm.ir.transform.Sequential([step])(module)
