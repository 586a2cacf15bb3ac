"""Small networks in which one cause of loss is planted, and their diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx_models import model, node, normal, save

import hwptq
from hwptq.data.dataset import from_batches
from hwptq.diagnosis.diagnosis import Diagnosis, diagnose
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.options import options_of
from hwptq.pipeline.step import Job

SIZE = (1, 3, 12, 12)
NODES = [
    node("Conv", "x w1 b1", "a", "first", pads=[1, 1, 1, 1]),
    node("Relu", "a", "ar", "first_relu"),
    node("Conv", "ar w2 b2", "b", "depthwise", pads=[1, 1, 1, 1], group=8),
    node("Relu", "b", "br", "depthwise_relu"),
    node("Conv", "br w3 b3", "c", "pointwise"),
    node("Relu", "c", "cr", "pointwise_relu"),
    node("GlobalAveragePool", "cr", "g", "pool"),
    node("Flatten", "g", "f", "flatten"),
    node("Gemm", "f w4 b4", "y", "classes"),
]


def constants() -> dict[str, np.ndarray]:
    """Weights of a network that quantizes well."""
    return {
        "w1": normal(1, 8, 3, 3, 3, spread=0.3),
        "b1": normal(2, 8, spread=0.1),
        "w2": normal(3, 8, 1, 3, 3, spread=0.4),
        "b2": normal(4, 8, spread=0.1),
        "w3": normal(5, 16, 8, 1, 1, spread=0.4),
        "b3": normal(6, 16, spread=0.1),
        "w4": normal(7, 16, 10, spread=0.4),
        "b4": normal(8, 10, spread=0.1),
    }


def images(seed: int, count: int, spread: float = 1.0) -> np.ndarray:
    return normal(seed, count, *SIZE[1:], spread=spread)


def diagnosed(
    folder: Path, weights: Mapping[str, np.ndarray], calibration: np.ndarray | None = None, **words: Any
) -> Diagnosis:
    """The diagnosis of the network with these weights, on 16 images of the calibration's kind."""
    proto = model(NODES, {"x": SIZE}, weights)
    imported = import_onnx(save(proto, folder), {})
    data = images(0, 16) if calibration is None else calibration
    job = Job(
        hwptq.load_target("x86-64-vnni"),
        from_batches({"x": data}, imported.inputs),
        options_of(None, **{"recipe": "fast", **words}),
    )
    return diagnose(imported.module, job, from_batches({"x": images(99, 16)}, imported.inputs))
