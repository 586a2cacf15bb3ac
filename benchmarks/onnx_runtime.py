"""ONNX Runtime as the one to beat: float32, and int8 by its own static quantization (QDQ, per channel)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from models import Case
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, case: Case):
        self.samples = iter(case.samples)

    def get_next(self) -> Any:
        return next(self.samples, None)


def quantize(
    case: Case,
    folder: Path,
    activation: quantization.QuantType = quantization.QuantType.QUInt8,
    per_channel: bool = True,
) -> Path:
    """The int8 model of a case: 8-bit activations, int8 weights, calibrated on its samples by MinMax."""
    logging.getLogger().setLevel(logging.ERROR)
    prepared, path = folder / f"{case.name}.prepared.onnx", folder / f"{case.name}.int8.onnx"
    quant_pre_process(str(case.model), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(path),
        _Reader(case),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=activation,
        weight_type=quantization.QuantType.QInt8,
    )
    return path


def quantize_dynamic(case: Case, folder: Path) -> Path:
    """A case with int8 weights by channel, and activations whose scales are found as they are computed."""
    path = folder / f"{case.name}.dynamic.onnx"
    quantization.quantize_dynamic(
        str(case.model), str(path), per_channel=True, weight_type=quantization.QuantType.QInt8
    )
    return path


#: Seconds for which its threads look for more work after a run, when nothing else should be timed.
_SPINNING = 0.02


class TimedSession:
    """A model in ONNX Runtime that tells how long one inference takes."""

    def __init__(self, model: Path, repeat: int, threads: int = 1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(model), options, providers=providers)
        self.repeat, self.threads = repeat, threads
        self.clock = time.process_time if threads == 1 else time.perf_counter

    def seconds(self, sample: Mapping[str, np.ndarray]) -> float:
        """Mean time of one inference on `sample`."""
        feed = dict(sample)
        self.session.run(None, feed)
        start = self.clock()
        for _ in range(self.repeat):
            self.session.run(None, feed)
        seconds = (self.clock() - start) / self.repeat
        if self.threads > 1:
            time.sleep(_SPINNING)
        return seconds

    def close(self) -> None:
        """Nothing to end."""
