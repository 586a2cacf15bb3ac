"""Every operator that runs on a GPU, in e4m3, int8, bf16 and between them, against its reference, bit by bit.

python benchmarks/gpu_operators.py FOLDER            on a machine with nvcc; writes operators.so and .npz
python benchmarks/gpu_operators_run.py FOLDER        on the machine with the GPU, with TVM's runtime
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from gpu_bf16_cases import bfloat16_cases
from gpu_cases import BFLOAT16, E4M3, FLOAT32, TARGET
from gpu_operator_case import CONVS, MODEL, Case, Values
from gpu_real_cases import real_cases

from hwptq.formats import fp8
from hwptq.operators.add import Add, FloatAdd
from hwptq.operators.avg_pool import AvgPool, FloatAvgPool
from hwptq.operators.clamp import Clamp
from hwptq.operators.conv2d import Conv2d, Conv2dToFloat, FloatConv2d
from hwptq.operators.dense import Dense, DenseFloat, DenseToFloat, FloatDense
from hwptq.operators.dequantize import Dequantize, FloatDequantize
from hwptq.operators.lookup import Lookup
from hwptq.operators.matmul import MatMul
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.mul import FloatMul, Mul
from hwptq.operators.pad import Pad
from hwptq.operators.quantize import FloatQuantize, Quantize


def convolutions(v: Values) -> Iterator[Case]:
    """Dense ones on tensor cores, depthwise and grouped ones without, in each dtype and into each."""
    for k, (n, h, w, c, o, kernel, strides, padding, dilation) in enumerate(CONVS):
        window = (strides, padding, dilation)
        for groups, outputs in ((1, o), (c, c)):
            name, depth = f"conv{k}_{groups}", c // groups
            weight = (outputs, *kernel, depth)
            bias, multiplier, shift = v.fixed(outputs, depth * kernel[0] * kernel[1])
            scale = v.reals(1e-4, 2e-4, outputs)
            for zero in (-128, 0):
                x, w8 = v.int8(n, h, w, c), v.int8(*weight)
                op = Conv2d(*window, groups, zero, -3, -100, 127)
                yield Case(f"{name}_int8_{zero}", op, (x,), (w8, bias, multiplier, shift))
                to = Conv2dToFloat(*window, groups, zero, 0.0, 3.0)
                yield Case(f"{name}_int8_{zero}_to_fp8", to, (x,), (w8, bias, scale))
            x, w8 = v.e4m3(n, h, w, c), v.e4m3(*weight)
            real = (v.reals(0.3, 3, outputs), v.reals(-1, 1, outputs))
            for out, factor in ((E4M3, 0.0), ("int8", 30.0), (FLOAT32, 0.0)):
                plain = FloatConv2d(
                    *window, groups, -inf, inf, out, MODEL, 0.0, 0, -7 if out == "int8" else 0
                )
                scaled = (real[0] * np.float32(factor or 1), real[1])
                yield Case(f"{name}_fp8_to_{out}", plain, (x,), (w8, *scaled))
                shape = plain.reference(x, w8, *real).shape
                for dtype in (E4M3, "int8"):
                    zero = 9 if dtype == "int8" else 0
                    joined = FloatConv2d(*window, groups, 0.0, inf, out, MODEL, 0.7, zero, 0)
                    yield Case(
                        f"{name}_fp8_to_{out}_add_{dtype}", joined, (x, v.of(dtype, *shape)), (w8, *scaled)
                    )


def dense(v: Values) -> Iterator[Case]:
    for rows, depth, outputs in (((1,), 40, 10), ((3, 50), 384, 130), ((160,), 100, 64)):
        name = f"dense_{depth}"
        bias, multiplier, shift = v.fixed(outputs, depth)
        x, w = v.int8(*rows, depth), v.int8(outputs, depth)
        yield Case(f"{name}_int8", Dense(4, 3, -128, 127), (x,), (w, bias, multiplier, shift))
        yield Case(f"{name}_float", DenseFloat(), (x,), (w, bias * 10000, v.reals(0.01, 2, outputs)))
        yield Case(
            f"{name}_to_fp8", DenseToFloat(4, -inf, 1.5), (x,), (w, bias, v.reals(1e-5, 1e-4, outputs))
        )
        real = (v.reals(0.3, 3, outputs), v.reals(-1, 1, outputs))
        x, w = v.e4m3(*rows, depth), v.e4m3(outputs, depth)
        for out in (E4M3, "int8", FLOAT32):
            yield Case(f"{name}_fp8_to_{out}", FloatDense(-inf, inf, out, MODEL, 0.0, 0, 0), (x,), (w, *real))


def others(v: Values) -> Iterator[Case]:
    """Operators without weights."""
    shape = (2, 5, 7, 20)
    for a, b in ((E4M3, E4M3), (E4M3, "int8"), ("int8", E4M3), ("int8", "int8")):
        for out in (E4M3, "int8"):
            x, y = v.of(a, *shape), v.of(b, *shape[-1:])
            ends = (3 if a == "int8" else 0, -9 if b == "int8" else 0, out, 5 if out == "int8" else 0)
            yield Case(f"add_{a}_{b}_{out}", FloatAdd(0.3, -1.7, -inf, 90.0, *ends), (x, y))
            yield Case(f"mul_{a}_{b}_{out}", FloatMul(0.3, 0.0, inf, *ends), (x, y))
        table = v.of(b, 256)
        lookup = Lookup()
        yield Case(f"lookup_{a}_{b}", lookup, (v.of(a, *shape),), (table,))
        mean = FloatAvgPool((2, 3), (2, 2), (0, 1, 0, 1), (2, 4), -inf, inf, 2 if a == "int8" else 0, b, 0)
        yield Case(f"mean_{a}_{b}", mean, (v.of(a, *shape),), (v.reals(0.1, 0.3, 8),))
    x = v.int8(*shape)
    one = (int(1.3 * 2**30), 20)
    yield Case("add_int8", Add(3, -4, 2**20, 700001, *one, -5, -128, 127), (x, v.int8(*shape)))
    yield Case("mul_int8", Mul(3, -4, *one, -5, -128, 127), (x, v.int8(1, 1, 1, 20)))
    limits = np.sort(v.int8(2, 20), axis=0)
    yield Case("clamp_int8", Clamp(), (x,), (limits[0], limits[1]))
    low = fp8.as_float8(fp8.encode(v.reals(-1, 0, 20)))
    high = fp8.as_float8(fp8.encode(v.reals(0, 1, 20)))
    yield Case("clamp_fp8", Clamp(), (v.e4m3(*shape),), (low, high))
    yield Case("max_int8", MaxPool((3, 2), (2, 2), (1, 1, 1, 0), (1, 1), (3, 4)), (x,))
    yield Case("max_fp8", MaxPool((3, 2), (2, 2), (1, 1, 1, 0), (1, 1), (3, 4)), (v.e4m3(*shape),))
    average = AvgPool((2, 3), (2, 2), (0, 1, 0, 1), (2, 4), 2**10, 3, -5, -128, 127)
    yield Case("mean_int8", average, (x,), (v.fixed(8, 6)[1], np.full(8, 13, np.int32)))
    yield Case("pad_int8", Pad((0, 1, 0, 2), (0, 0, 3, 1), -7), (x,))
    yield Case("pad_fp8", Pad((0, 1, 0, 2), (0, 0, 3, 1), 0x38), (v.e4m3(*shape),))
    real = v.rng.standard_normal(shape, np.float32) * 40
    yield Case("quantize_int8", Quantize(1 / 3, -4), (real,))
    yield Case("dequantize_int8", Dequantize(0.0137, -4), (x,))
    yield Case("quantize_fp8", FloatQuantize(3.7), (real,))
    yield Case("dequantize_fp8", FloatDequantize(0.0137), (v.e4m3(*shape),))
    product = MatMul(3, -4, one[0], 14, 1, -128, 127)
    yield Case("matmul_int8", product, (v.int8(2, 3, 17, 33), v.int8(3, 33, 20)))


def cases() -> Iterator[Case]:
    """The same on every machine."""
    v = Values(0)
    yield from convolutions(v)
    yield from dense(v)
    yield from others(v)
    yield from bfloat16_cases(Values(1))
    yield from real_cases(Values(2))


def by_warps(case: Case) -> bool:
    """Whether to run the kernel for GPUs without wgmma too: on Hopper its int8 form gives what it must."""
    return case.op.kind.split("_")[0] in ("conv2d", "dense") and getattr(case.op, "groups", 1) == 1


def codes(array: np.ndarray) -> np.ndarray:
    """What an .npz can hold of an array."""
    if str(array.dtype) in (E4M3, BFLOAT16):
        return np.ascontiguousarray(array).view(f"int{8 * array.itemsize}")
    return np.ascontiguousarray(array)


def build(folder: Path, part: int, parts: int, only: str) -> None:
    """The kernels of every case, what they are called with, and what the reference gives."""
    from hwptq.backends.tvm_cuda.cuda_compile import compile_kernels
    from hwptq.targets import load_target

    hopper, ada = load_target(TARGET), load_target("nvidia-ada-fp8")
    kernels: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    plan: list[dict[str, Any]] = []
    for case in [c for c in cases() if c.name.startswith(only)][part::parts]:
        _add(case, hopper, kernels, arrays, plan)
        if by_warps(case):
            _add(replace(case, name=f"{case.name}_by_warps"), ada, kernels, arrays, plan)
    compile_kernels(kernels, hopper.tvm).export_library(str(folder / f"operators{part}.so"))
    np.savez_compressed(folder / f"operators{part}.npz", plan=np.array(json.dumps(plan)), **arrays)
    print(f"{len(plan)} cases, {len(kernels)} kernels")


def _add(case: Case, target: Any, kernels: Any, arrays: Any, plan: list[dict[str, Any]]) -> None:
    from hwptq.kernels.layer import Layer
    from hwptq.kernels.select import select
    from hwptq.tir.kernel import TensorType

    expected = np.asarray(case.op.reference(*case.activations, *case.constants))
    types = [TensorType(a.shape, str(a.dtype)) for a in case.activations]
    out = TensorType(expected.shape, str(expected.dtype))
    steps = []
    arrays |= {f"{case.name}/in{i}": codes(a) for i, a in enumerate(case.activations)}
    arrays[f"{case.name}/out"] = codes(expected)
    for i, step in enumerate(select(Layer(case.op, tuple(types), case.constants, out), target)):
        kernels[f"k{len(plan)}_{i}"] = step.func
        arrays |= {
            f"{case.name}/{i}/{j}": codes(a) for j, a in enumerate(step.args) if isinstance(a, np.ndarray)
        }
        args = [str(a.dtype) if isinstance(a, np.ndarray) else a for a in step.args]
        steps.append({"args": args, "shape": step.out.shape, "dtype": step.out.dtype})
    plan.append({"name": case.name, "inputs": [str(a.dtype) for a in case.activations], "steps": steps})


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("folder", type=Path)
    command.add_argument("--part", default="0/1", help="build the cases i, i + n, … only, of i/n")
    command.add_argument("--only", default="", help="build the cases whose names begin so")
    arguments = command.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    part, parts = map(int, arguments.part.split("/"))
    build(arguments.folder, part, parts, arguments.only)


if __name__ == "__main__":
    main()
