"""Quantizes a model with another tool, in whose Python this runs: TOOL MODEL.onnx SAMPLES.npz OUT.onnx.

Each tool with its defaults for 8 bits; samples: one array a model input, the first axis counting samples that
have a batch axis of 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx


def _samples(file: str) -> list[dict[str, np.ndarray]]:
    arrays = dict(np.load(file))
    count = len(next(iter(arrays.values())))
    return [{name: array[i] for name, array in arrays.items()} for i in range(count)]


def matmul_nbits(model: str, samples: list[dict[str, np.ndarray]], out: str) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(model), block_size=32, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(out)


def nncf(model: str, samples: list[dict[str, np.ndarray]], out: str) -> None:
    import nncf as tool

    quantized = tool.quantize(onnx.load(model), tool.Dataset(samples), subset_size=len(samples))
    onnx.save(quantized, out)


def esp_ppq(model: str, samples: list[dict[str, np.ndarray]], out: str) -> None:
    import torch
    from esp_ppq import TargetPlatform
    from esp_ppq.api import espdl_quantize_onnx, export_ppq_graph

    name = next(iter(samples[0]))
    data = [torch.from_numpy(s[name]) for s in samples]
    folder = Path(out).parent
    graph = espdl_quantize_onnx(
        onnx_import_file=model, espdl_export_file=str(folder / "net.espdl"), calib_dataloader=data,
        calib_steps=len(data), input_shape=list(data[0].shape), target="esp32p4", num_of_bits=8, device="cpu",
        error_report=False, export_test_values=False, verbose=0,
    )  # fmt: skip
    export_ppq_graph(graph=graph, platform=TargetPlatform.ONNXRUNTIME, graph_save_to=out)


def aimet(model: str, samples: list[dict[str, np.ndarray]], out: str) -> None:
    from aimet_onnx.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(onnx.load(model))
    sim.compute_encodings(samples)
    onnx.save(sim.to_onnx_qdq(), out)


def quark(model: str, samples: list[dict[str, np.ndarray]], out: str) -> None:
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config import Config, get_default_config

    class Reader:
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> Any:
            return next(self.left, None)

    config = Config(global_quant_config=get_default_config("S8S8_AAWS"))
    ModelQuantizer(config).quantize_model(model, out, Reader())


def modelopt(model: str, samples: list[dict[str, np.ndarray]], out: str) -> None:
    from modelopt.onnx.quantization import quantize

    data = {name: np.concatenate([s[name] for s in samples]) for name in samples[0]}
    # in float32 else: ONNX Runtime's QuantizeLinear truncates what is float16
    quantize(
        model, calibration_data=data, output_path=out, calibration_eps=["cpu"], high_precision_dtype="fp32"
    )


TOOLS: dict[str, Callable[[str, list[dict[str, np.ndarray]], str], None]] = {
    "matmul-nbits": matmul_nbits,
    "nncf": nncf, "esp-ppq": esp_ppq, "aimet": aimet, "quark": quark, "modelopt": modelopt,
}  # fmt: skip

if __name__ == "__main__":
    tool, model, file, out = sys.argv[1:]
    TOOLS[tool](model, _samples(file), out)
