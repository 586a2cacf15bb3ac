"""Chains of thousands of nodes: nothing recurses by depth, and the time grows with their number."""

from __future__ import annotations

import gc
import inspect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import model, node, normal, save

import hwptq

TARGET = "x86-64-avx2"
CONSTANTS = {
    "w": np.eye(6, dtype=np.float32), "low": np.float32(-1), "high": np.float32(1),
    "a": np.array([1, 6]), "b": np.array([2, 3]),
}  # fmt: skip


Make = Callable[[int, str, str], onnx.NodeProto]


def relu(number: int, x: str, y: str) -> onnx.NodeProto:
    return node("Relu", x, y, f"node{number}")


def clip(number: int, x: str, y: str) -> onnx.NodeProto:
    return node("Clip", f"{x} low high", y, f"node{number}")


def reshape(number: int, x: str, y: str) -> onnx.NodeProto:
    return node("Reshape", f"{x} {'a' if number % 2 else 'b'}", y, f"node{number}")


def swish(number: int, x: str, y: str) -> onnx.NodeProto:
    """Half a node: two of them are x * sigmoid(x)."""
    op, inputs = ("Mul", f"{x} t{number - 1}") if number % 2 else ("Sigmoid", x)
    return node(op, inputs, y, f"node{number}")


def compiled(folder: Path, make: Make, count: int, recipe: str = "fast") -> Any:
    """A dense layer, a chain of an even number of nodes, and a dense layer, compiled."""
    chain = [make(i, f"t{i}", f"t{i + 1}") for i in range(count)]
    ends = node("MatMul", "x w", "t0", "first"), node("MatMul", f"t{count} w", "y", "last")
    path = save(model([ends[0], *chain, ends[1]], {"x": ["N", 6]}, CONSTANTS), folder)
    samples = [{"x": normal(i, 1, 6)} for i in range(4)]
    return hwptq.compile(path, TARGET, samples, output=folder / "out", recipe=recipe)


@pytest.mark.parametrize(("make", "count"), [(relu, 2000), (clip, 600), (reshape, 600), (swish, 600)])
def test_no_recursion_by_depth(
    tmp_path: Path, runnable: Callable[[str], str], make: Make, count: int
) -> None:
    """Python may be 400 calls deeper than here."""
    runnable(TARGET)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 400)
    try:
        report = compiled(tmp_path, make, count).report
    finally:
        sys.setrecursionlimit(limit)
    assert report["bit_exact"]["mismatches"] == 0
    assert report["bit_exact"]["values"] > 0


def test_no_recursion_by_depth_in_any_step(tmp_path: Path, runnable: Callable[[str], str]) -> None:
    """The default recipe has steps that follow a tensor to the layers that read it."""
    runnable(TARGET)
    assert compiled(tmp_path, relu, 400, "default").report["bit_exact"]["mismatches"] == 0


def test_time_grows_with_the_number_of_nodes(tmp_path: Path, runnable: Callable[[str], str]):
    """Processor time, so that a busy machine is no reason to fail; what a compilation takes anyway helps.

    Of two compilations the faster, and without looking for garbage among what other tests have left.
    """
    runnable(TARGET)

    def seconds(count: int) -> float:
        start = time.process_time()
        compiled(tmp_path, relu, count)
        return time.process_time() - start

    gc.freeze()
    first, short, long = (min(seconds(count) for _ in range(2)) for count in (20, 250, 750))
    gc.unfreeze()
    assert long - first <= 3 * 1.5 * (short - first)
