"""Steps of small language models with random weights, and texts for them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm

from hwptq import passes
from hwptq.data.dataset import from_batches
from hwptq.data.with_caches import WithCaches
from hwptq.frontends.frontend import read_model
from hwptq.options import options_of
from hwptq.pipeline.stages import dynamic, integers, quantize
from hwptq.pipeline.step import Job
from hwptq.targets import load_target

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from llama_graph import Llama, decoding_step

#: Two layers, heads that share keys, sizes that are no whole tiles.
SMALL = Llama(width=64, inner=96, heads=4, shared=2, size=16, layers=2, words=43, context=20)
CALIBRATION = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]


def llama() -> onnx.ModelProto:
    """A step: (input_ids int64 [1,1], position int64 [1], caches) -> (logits [1,1,43], caches of 20 rows)."""
    return decoding_step(SMALL)


def steps(tokens: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """A text, token by token."""
    return [{"input_ids": np.array([[t]]), "position": np.array([i])} for i, t in enumerate(tokens)]


def prompts(tokens: Sequence[int], sizes: Iterable[int], most: int) -> list[dict[str, np.ndarray]]:
    """The same in parts of these sizes, as what reads `most` at once takes them; behind each is anything."""
    found, at = [], 0
    for size in sizes:
        part = [*tokens[at : at + size], *np.random.default_rng(at).integers(0, 40, most - size)]
        found.append(
            {"input_ids": np.array([part]), "position": np.array([at]), "count": np.array([size])}
        )  # fmt: skip
        at += size
    return found


def integer_step(model: onnx.ModelProto, target: str = "x86-64-avx2", **words: Any) -> tvm.IRModule:
    """The integer module of a step whose caches are noted."""
    options = options_of(None, **words)
    read = read_model(model, options.axes, options.fixed)
    module = passes.CarryCaches()(read.module)
    if options.activations == "dynamic":
        job = Job(load_target(target), None, options)
        return integers(dynamic(module, job), job)
    data = WithCaches(from_batches(steps(CALIBRATION), replace(read, module=module).fed), module)
    job = Job(load_target(target), data, options)
    return integers(quantize(module, job), job)
