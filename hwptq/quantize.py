"""From a float module to its QDQ form: float passes, calibrate, choose dtypes, insert Q and DQ."""

from __future__ import annotations

from dataclasses import dataclass

import tvm

from . import passes
from .calibration import calibrate
from .data import Dataset
from .options import Options
from .progress import Progress
from .targets import Descriptor


@dataclass(frozen=True)
class Quantized:
    """A model before and after quantization; both give named tensors that can be compared."""

    float32: tvm.IRModule
    qdq: tvm.IRModule


def fuse(module: tvm.IRModule) -> tvm.IRModule:
    """Float passes: the outputs stay the same."""
    return tvm.ir.transform.Sequential([passes.FoldBatchNorm(), passes.FuseConvRelu()])(module)


def quantize(
    module: tvm.IRModule, target: Descriptor, data: Dataset, options: Options, progress: Progress
) -> Quantized:
    """Quantize an imported float module for `target`. Raises InputError for bad calibration data."""
    with progress.stage("calibrate"):
        fused = fuse(module)
        stats = calibrate(fused, (sample.inputs for sample in progress.track(data, data.count)))
    insert = passes.InsertQDQ(target, stats, options.weight_granularity, options.exclude)
    return Quantized(fused, tvm.ir.transform.Sequential([insert])(fused))
