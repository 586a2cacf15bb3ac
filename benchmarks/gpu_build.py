"""Build what the GPU benchmarks run, on a machine with nvcc; it needs no GPU.

    python benchmarks/gpu_build.py --output FOLDER [--only equality|speed|resnet50]

FOLDER then holds what benchmarks/gpu_run.py and gpu_resnet50_run.py take on the machine with the GPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tvm
from gpu_cases import Case, equality_cases, speed_cases
from gpu_resnet50 import build_resnet50

from hwptq.backends.tvm_cuda.cuda_compile import compile_kernels
from hwptq.kernels.cuda.wgmma import wgmma_kernel
from hwptq.kernels.cuda.wgmma_store import Epilogue
from hwptq.targets import load_target

INFINITY = float("inf")


def prim_func(case: Case) -> tvm.tirx.PrimFunc:
    """The kernel of a case, with flat shapes."""
    problem = case.tiling.problem
    epilogue = Epilogue(case.out, 0.0 if case.relu else -INFINITY, INFINITY, case.residual)
    y = (problem.rows, problem.outputs)
    return wgmma_kernel(case.tiling, epilogue, problem.images, y)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--only", choices=("equality", "speed", "resnet50"), help="one of the three")
    arguments = command.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    groups = {"equality": list(equality_cases()), "speed": [case for _, case in speed_cases()]}
    for name, cases in groups.items():
        if arguments.only not in (None, name):
            continue
        kernels = {case.name: prim_func(case) for case in cases}
        compile_kernels(kernels, load_target("nvidia-hopper-fp8").tvm).export_library(
            str(arguments.output / f"{name}.so")
        )
        print(f"{name}: {len(kernels)} kernels")
    if arguments.only in (None, "resnet50"):
        build_resnet50(arguments.output)


if __name__ == "__main__":
    main()
