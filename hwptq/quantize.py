"""From a float module to its QDQ form: the steps of a recipe, in their order.

float passes (outputs unchanged) -> calibrate -> InsertQDQ -> passes that repair the weights (QDQ -> QDQ)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import tvm

from hwptq.data.dataset import Dataset
from hwptq.formats import format_of
from hwptq.ir.dataflow import bindings, main_functions

from . import passes
from .calibration import CalibrationStats, calibrate
from .errors import InputError
from .options import Options
from .passes.graph.quantizable import kind, layer_dtypes, with_float_reasons
from .progress import Progress
from .recipe import Recipe
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
    steps = [passes.LowerConvTranspose(), passes.FoldBatchNorm(), passes.FuseConvRelu()]
    return tvm.ir.transform.Sequential(steps)(module)


def prepare(
    module: tvm.IRModule, target: Descriptor, data: Dataset | None, options: Options, progress: Progress
) -> tuple[tvm.IRModule, CalibrationStats]:
    """The float module that is quantized, and what its tensors hold. Raises InputError for bad or no data."""
    if data is None:
        raise InputError(
            "the model is in float: give calibration data (or a model with QuantizeLinear nodes)"
        )
    batches, recipe = Batches(data, progress), options.recipe
    float32 = fuse(module)
    if recipe.smooth:
        with progress.stage("smooth"):
            float32 = _apply(passes.SmoothActivations(batches), float32)
    if recipe.equalize == "on" or (recipe.equalize == "auto" and _per_tensor(target, options)):
        with progress.stage("equalize"):
            float32 = _apply(passes.EqualizeCrossLayer(), float32)
    if recipe.absorb:
        with progress.stage("absorb"):
            float32 = _apply(passes.AbsorbHighBias(calibrate(float32, batches, axis=1)), float32)
    with progress.stage("calibrate"):
        return float32, calibrate(float32, batches, recipe.observer)


def insert(
    float32: tvm.IRModule, stats: CalibrationStats, target: Descriptor, data: Dataset, options: Options,
    progress: Progress,
) -> Quantized:  # fmt: skip
    """Quantize a prepared module, with the dtypes recorded on it, else the first of the target's."""
    batches, recipe = Batches(data, progress), options.recipe
    qdq = _apply(passes.InsertQDQ(target, stats, options.weight_granularity, options.keep_float), float32)
    in_floats = any(format_of(dtype).is_float for pair in _pairs(qdq) for dtype in pair)
    corrects = recipe.correct_bias or recipe.rounding != "nearest"
    if recipe.rounding != "nearest" and not in_floats:
        with progress.stage("round weights"):
            step = passes.RoundWeights(float32, batches, passes.RoundingOptions(recipe.rounding))
            qdq = _apply(step, qdq)
    elif recipe.correct_bias and not in_floats:
        with progress.stage("correct bias"):
            qdq = _apply(passes.CorrectBias(float32, batches), qdq)
    if in_floats and corrects:
        with progress.stage("correct bias"):
            qdq = _apply(passes.CorrectFp8Bias(float32, batches, target.accumulators), qdq)
    return Quantized(float32, qdq)


def rounded_alone(
    float32: tvm.IRModule, qdq: tvm.IRModule, samples: Iterable[dict[str, np.ndarray]], recipe: Recipe
) -> tvm.IRModule:
    """A QDQ form of `float32` with the rounding of a recipe, each layer as if it alone were quantized."""
    in_floats = any(format_of(dtype).is_float for pair in _pairs(qdq) for dtype in pair)
    if recipe.rounding == "nearest" or in_floats:
        return qdq
    options = passes.RoundingOptions(recipe.rounding, alone=True)
    return _apply(passes.RoundWeights(float32, samples, options), qdq)


def _pairs(qdq: tvm.IRModule) -> list[tuple[str, str]]:
    """The (activation, weight) dtypes of every layer of a QDQ module."""
    return [pair for _, f in main_functions(qdq) for pair in layer_dtypes(f).values()]


def normalize(module: tvm.IRModule, target: Descriptor) -> Quantized:
    """A module that another tool has quantized: it keeps its scales; what it computes in float, with its Q
    and DQ, stands for float32. What the target doesn't list stays in float."""
    step = passes.NormalizeQDQ()  # also afterwards: quantize is named after what was fused
    prepared = tvm.ir.transform.Sequential([step, passes.FuseConvRelu(), step])(module)
    prepared = with_float_reasons(prepared, _unlisted(prepared, target))
    return Quantized(prepared, prepared)


def _unlisted(module: tvm.IRModule, target: Descriptor) -> dict[str, str]:
    """The nodes of a kind that the descriptor has no rule for, each with the reason why it stays float."""
    found = [(var, kind(module, value)) for _, f in main_functions(module) for var, value in bindings(f)]
    return {
        str(var.name): f"target {target.name} lists no operator {k}"
        for var, k in found
        if k is not None and target.rule(k) is None
    }


def quantize(
    module: tvm.IRModule, target: Descriptor, data: Dataset | None, options: Options, progress: Progress
) -> Quantized:
    """Quantize an imported module for `target`, each layer to the first dtypes that it offers.

    Raises InputError for bad or no calibration data.
    """
    if passes.is_quantized(module):
        return normalize(module, target)
    float32, stats = prepare(module, target, data, options, progress)
    assert data is not None
    return insert(float32, stats, target, data, options, progress)


def _per_tensor(target: Descriptor, options: Options) -> bool:
    """Whether the weights of convolutions have one scale for all channels."""
    rules = [target.rule(kind) for kind in ("conv2d", "depthwise_conv2d")]
    of_target = "tensor" in [rule.granularity for rule in rules if rule is not None]
    return of_target if options.weight_granularity is None else options.weight_granularity == "tensor"


def _apply(step: tvm.transform.Pass, module: tvm.IRModule) -> tvm.IRModule:
    return tvm.ir.transform.Sequential([step])(module)
