"""Which accumulator the tensor cores sum products of bfloat16 in: candidates against the chip, bit by bit.

python benchmarks/gpu_bf16_sums.py build FOLDER      on a machine with nvcc
python benchmarks/gpu_bf16_sums.py run FOLDER        on the machine with the GPU, with TVM's runtime

A candidate is a [bf16_accumulator] of the descriptor: products summed at once, and fraction bits kept.
"""

from __future__ import annotations

from itertools import product as pairs
from pathlib import Path

import numpy as np
from gpu_cases import FLOAT32, TARGET
from gpu_command import parser

from hwptq.formats import bf16
from hwptq.operators.dense import FloatDense
from hwptq.quant import bf16_accumulate
from hwptq.quant.fp8_accumulate import Accumulator

CANDIDATES = tuple(pairs((4, 8, 16, 32), (22, 23, 24, 25, 26, 27)))
KINDS, DEPTHS, ROWS, COLUMNS = ("normal", "positive", "wide", "tiny"), (16, 48, 512, 2048), 70, 64


def operand(kind: str, rows: int, depth: int, seed: int) -> np.ndarray:
    """bfloat16; "wide": exponents that differ by up to 40, "tiny": products at the lower end of float32."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, depth), np.float32)
    ends = {"wide": (-20, 21), "tiny": (-80, -58)}.get(kind, (0, 1))
    x = np.ldexp(x, rng.integers(*ends, x.shape))
    return bf16.encode(np.abs(x) if kind == "positive" else x)


def operands(kind: str, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """x and w: the same on every machine."""
    return operand(kind, ROWS, depth, depth), operand(kind, COLUMNS, depth, depth + 1)


def build(folder: Path) -> None:
    from hwptq.backends.tvm_cuda.cuda_compile import compile_kernels
    from hwptq.kernels.layer import Layer
    from hwptq.kernels.select import select
    from hwptq.targets import load_target
    from hwptq.tir.kernel import TensorType

    target = load_target(TARGET)
    kernels, arrays = {}, {}
    op = FloatDense(-np.inf, np.inf, FLOAT32, (16, 25, 0))
    for depth in DEPTHS:
        for kind in KINDS:
            x, w = operands(kind, depth)
            constants = [w, np.ones(COLUMNS, np.float32), np.zeros(COLUMNS, np.float32)]
            out = TensorType((ROWS, COLUMNS), FLOAT32)
            (step,) = select(Layer(op, (TensorType(x.shape, str(x.dtype)),), constants, out), target)
            kernels[f"k{depth}"] = step.func
            for i, a in enumerate(step.args[1:]):
                assert isinstance(a, np.ndarray)
                arrays[f"{kind}_{depth}/{i}"] = a.view(f"int{8 * a.itemsize}") if a.itemsize < 4 else a
            for size, bits in CANDIDATES:
                found = bf16_accumulate.product(x, w, Accumulator(size, bits, 0)) + np.float32(0)
                arrays[f"{kind}_{depth}/{size}_{bits}"] = found
    compile_kernels(kernels, target.tvm).export_library(str(folder / "bf16_sums.so"))
    np.savez_compressed(folder / "bf16_sums.npz", **arrays)
    print(f"{len(kernels)} kernels, {len(CANDIDATES)} candidates")


def run(folder: Path) -> None:
    """Print how many sums differ from those of each candidate, by kind of data, the best ones first."""
    from gpu_device import Device

    device = Device()
    module = device.tvm.runtime.load_module(str(folder / "bf16_sums.so"))
    stored = np.load(folder / "bf16_sums.npz")
    wrong = {candidate: dict.fromkeys(KINDS, 0) for candidate in CANDIDATES}
    for kind, depth in pairs(KINDS, DEPTHS):
        name = f"{kind}_{depth}"
        residual, factor, w, scale, bias = (device.put(stored[f"{name}/{i}"]) for i in range(5))
        x = device.put(bf16.as_codes(operands(kind, depth)[0]).view(np.int16))
        x, w = (t.view(device.torch.bfloat16) for t in (x, w))
        residual = residual.view(device.torch.float8_e4m3fn)
        y = device.empty((ROWS, COLUMNS), FLOAT32)
        module[f"k{depth}"](*map(device.take, (x, residual, factor, w, scale, bias, y)))
        device.torch.cuda.synchronize()
        found = y.cpu().numpy().view(np.uint32)
        for size, bits in CANDIDATES:
            expected = stored[f"{name}/{size}_{bits}"].view(np.uint32)
            wrong[size, bits][kind] += int((found != expected).sum())
    total = len(KINDS) * len(DEPTHS) * ROWS * COLUMNS
    for (size, bits), by_kind in sorted(wrong.items(), key=lambda row: sum(row[1].values())):
        print(
            f"bf16 sums: step {size:2} fraction_bits {bits}: {sum(by_kind.values())} of {total} differ",
            by_kind,
        )


def main() -> None:
    arguments = parser(__doc__).parse_args()
    {"build": build, "run": run}[arguments.what](arguments.folder)


if __name__ == "__main__":
    main()
