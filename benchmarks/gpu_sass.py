"""Which kernels of compiled models multiply on tensor cores; it needs cuobjdump, but no GPU.

python benchmarks/gpu_sass.py LIBRARY...      model.so of `hwptq compile`, resnet50_*.so of gpu_build.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hwptq.backends.tvm_cuda.sass import instructions
from hwptq.targets import load_target

TENSOR_CORES = ("QGMMA", "IGMMA")  # products of e4m3, of int8


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("library", type=Path, nargs="+")
    target = load_target("nvidia-hopper-fp8")
    print("| library | kernels of products | on tensor cores | QGMMA | IGMMA | other kernels |")
    print("|---|---|---|---|---|---|")
    for library in command.parse_args().library:
        found = instructions(library, target)
        products = [counts for name, counts in found.items() if "wgmma" in name]
        on_them = sum(any(counts[i] for i in TENSOR_CORES) for counts in products)
        sums = [sum(counts[i] for counts in products) for i in TENSOR_CORES]
        columns = (library, len(products), on_them, *sums, len(found) - len(products))
        print("|", " | ".join(map(str, columns)), "|")


if __name__ == "__main__":
    main()
