"""hwptq's passes in a pipeline of one's own, between those of TVM.

    python examples/embedding/own_pipeline.py [TARGET]

TVM's importer reads the digits model, TVM's virtual machine runs the result; hwptq gives the passes between
them. TARGET is a target whose code runs on this machine. Prints how many images are recognized, in float and
in integers, and how many bits the kernels change in the output of the portable code: none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.ir.transform import Sequential
from tvm.relax.frontend.onnx import from_onnx

import hwptq
from hwptq import passes
from hwptq.targets import Descriptor, load_target

DIGITS = Path(__file__).resolve().parent.parent / "digits"


def images(file: str) -> Iterator[tuple[np.ndarray, int]]:
    """Images as the model takes them, float32 [1, 1, 8, 8], with their labels."""
    with np.load(DIGITS / file) as data:
        for image, label in zip(data["input"], data["y"], strict=True):
            yield (image.astype(np.float32) / 16).reshape(1, 1, 8, 8), int(label)


@relax.transform.function_pass(opt_level=0, name="CountBindings")
class CountBindings:
    """A pass of one's own: notes the length of each function that is no composite."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def transform_function(self, func: relax.Function, mod: tvm.IRModule, ctx: object) -> relax.Function:
        if "Composite" not in (func.attrs or {}):
            self.counts.append(sum(len(block.bindings) for block in func.body.blocks))
        return func


def prepare(mod: tvm.IRModule) -> tvm.IRModule:
    """Float passes: the outputs stay the same."""
    return Sequential(
        [
            relax.transform.FoldConstant(),
            passes.FoldBatchNorm(),
            relax.transform.DeadCodeElimination(),
            passes.FuseConvRelu(),
        ]
    )(mod)


def quantize(mod: tvm.IRModule, target: Descriptor, stats: hwptq.CalibrationStats) -> tvm.IRModule:
    """From float to integers, in portable code."""
    count = CountBindings()
    integer = Sequential(
        [
            count,
            passes.InsertQDQ(target, stats),
            relax.transform.EliminateCommonSubexpr(),
            count,
            passes.LowerToInteger(target),
            relax.transform.CanonicalizeBindings(),
            count,
        ]
    )(mod)
    print(f"bindings in float, with Q and DQ, in integers: {count.counts}")
    return integer


def classify(mod: tvm.IRModule, target: tvm.target.Target) -> tuple[np.ndarray, float]:
    """The outputs for all evaluation images, and the share of them that is recognized."""
    machine = relax.VirtualMachine(tvm.compile(mod, target), tvm.cpu())
    pairs = [(machine["main"](tvm.runtime.tensor(x)).numpy(), label) for x, label in images("evaluation.npz")]
    hits = [int(output.argmax()) == label for output, label in pairs]
    return np.concatenate([output for output, _ in pairs]), float(np.mean(hits))


def main(name: str = "x86-64-avx2") -> int:
    """Returns in how many values the outputs of kernels and portable code differ."""
    target = load_target(name)
    device = tvm.target.Target(dict(target.tvm))
    model = onnx.load(str(DIGITS / "digits.onnx"))
    (given,) = model.graph.input
    imported = from_onnx(model, shape_dict={given.name: [1, 1, 8, 8]})

    mod = prepare(imported)
    stats = hwptq.calibrate(mod, ({given.name: image} for image, _ in images("calibration.npz")))
    integer = quantize(mod, target, stats)
    kernels = Sequential([passes.SelectKernels(target), relax.transform.DeadCodeElimination()])(integer)

    _, in_float = classify(imported, device)
    portable, _ = classify(integer, device)
    emitted, in_integers = classify(kernels, device)
    differ = int(np.count_nonzero(portable != emitted))
    print(f"recognized: {in_float:.2%} in float, {in_integers:.2%} in integers")
    print(f"{differ} of {emitted.size} values differ between the kernels and the portable code")
    return differ


if __name__ == "__main__":
    sys.exit(min(main(*sys.argv[1:2]), 1))
