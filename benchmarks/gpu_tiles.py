"""Tiles of promoted products beside each other and cuBLASLt: where the costs in the descriptor come from.

    python benchmarks/gpu_tiles.py build FOLDER       on a machine with nvcc; writes tiles.so
    python benchmarks/gpu_tiles.py run FOLDER         on the machine with the GPU, with TVM and PyTorch

Every tile must give the bits of the tile that is chosen. Microseconds; the best of a shape is marked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from gpu_cases import E4M3, TARGET, Case, gemm
from gpu_command import parser

from hwptq.kernels.cuda.tiling import candidates, choose
from hwptq.targets import load_target

SHAPES = ((8192, 8192, 8192), (4096, 4096, 4096), (25216, 768, 3072), (25216, 3072, 768))
GROUPS = (8, 16)  # rows of tiles that are walked together


def cases(shape: tuple[int, int, int]) -> Iterator[Case]:
    """A case for each tile and group; the first is the one that is chosen."""
    kernel, problem = load_target(TARGET).kernels["wgmma"], gemm(*shape)
    chosen = choose(problem, kernel)
    wide = [tile for tile in kernel.tiles if tile.promoted and tile.columns > 64 and tile != chosen.tile]
    for tiling in candidates(problem, replace(kernel, tiles=(chosen.tile, *wide))):
        tile = tiling.tile
        how = f"{tile.sharing}{'_pairs' if tile.pairs else ''}"
        for group in GROUPS:
            name = f"t{'_'.join(map(str, shape))}_{tiling.rows}x{tile.columns}_{how}_{group}"
            yield Case(name, replace(tiling, group=group), E4M3)


def build(folder: Path) -> None:
    """tiles.so"""
    from gpu_build import prim_func

    from hwptq.backends.tvm_cuda.cuda_compile import compile_kernels

    kernels = {case.name: prim_func(case) for shape in SHAPES for case in cases(shape)}
    compile_kernels(kernels, load_target(TARGET).tvm).export_library(str(folder / "tiles.so"))
    print(f"{len(kernels)} kernels")


def run(folder: Path) -> None:
    """A line for each tile: microseconds, how they compare with cuBLASLt, and the bits that differ."""
    from gpu_device import Device
    from gpu_run import gemm_libraries, medians_us, speed_tensors

    device = Device()
    module = device.tvm.runtime.load_module(str(folder / "tiles.so"))
    for shape in SHAPES:
        first, *others = cases(shape)
        tensors = speed_tensors(device, first)
        library = gemm_libraries(device.torch, tensors, first)["cublaslt"]
        contenders, differ, wanted = {"cublaslt": library}, {}, None
        for case in (first, *others):
            calls = [partial(module[case.name], *(device.take(a) for a in some)) for some in tensors]
            tensors[0][-1].view(device.torch.uint8).fill_(0xFF)
            calls[0]()
            device.torch.cuda.synchronize()
            found = tensors[0][-1].view(device.torch.uint8).clone()
            wanted = found if wanted is None else wanted
            differ[case.name], contenders[case.name] = int((found != wanted).sum()), calls
        times = medians_us(device.torch, contenders, rounds=15)
        best = min(differ, key=lambda name: times[name])
        print(f"{shape}: cuBLASLt {times['cublaslt']}")
        for name in differ:
            us, mark = times[name], "  <- best" if name == best else ""
            versus = f"{times['cublaslt'] / us:.3f} x  {differ[name]} bytes differ{mark}"
            print(f"  {name:48} {us:8.2f}  {versus}", flush=True)


def main() -> None:
    arguments = parser(__doc__).parse_args()
    {"build": build, "run": run}[arguments.what](arguments.folder)


if __name__ == "__main__":
    main()
