"""Models for microcontrollers, run by qemu's boards: mismatches, memory, and instructions of an inference.

    python benchmarks/microcontrollers.py --data DATA [--targets arm-cortex-m4] [--cases demo,tiny-kws]

Counts are differences between runs on one sample and on three, so that the start cancels; reading the sample
and writing the outputs is in them. SRAM is the arena, the buffers of input and output, and the stack.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from common import compiled, parser

import hwptq
from hwptq.backends.static_c.instruction_counter import InstructionCounter
from hwptq.recipe import RECIPES

command = parser(__doc__)
command.add_argument("--samples", type=int, default=100, help="samples to compare bit for bit")
command.add_argument("--targets", default="arm-cortex-m4,arm-cortex-m55,riscv32-imc")
command.add_argument("--cases", default="demo,tiny-kws,resnet8,tiny-ad")


def instructions(model: hwptq.CompiledModel) -> Counter[str]:
    """Of one inference, by function."""
    golden = np.load(model.folder / "golden.npz")

    def data(count: int) -> bytes:
        arrays = (golden[t.name][i].astype(t.numpy_dtype) for i in range(count) for t in model.inputs)
        return b"".join(array.tobytes() for array in arrays)

    with tempfile.TemporaryDirectory() as folder:
        counter = InstructionCounter(model.program.run, Path(folder))
        once, thrice = (counter.count([model.program.command[-1]], data(n)) for n in (1, 3))
    return Counter({name: (thrice[name] - once[name]) // 2 for name in thrice})


def main() -> None:
    """One row for each target and case."""
    args = command.parse_args()
    print("| target | model | differ | flash kB | SRAM kB | arena kB | million instructions |")
    print("|---|---|---|---|---|---|---|")
    for name in args.targets.split(","):
        for case in args.cases.split(","):
            options = hwptq.Options(samples=args.samples, recipe=RECIPES["fast"])
            with compiled(case, name, args.data, options) as model:
                report, count = model.report, instructions(model).total()
            exact, regions = report["bit_exact"], report["regions"]
            flash = sum(r["used"] for r in regions if {"code", "constants"} & {*r["holds"]})
            sram = sum(r["used"] for r in regions if {"data", "arena"} & {*r["holds"]})
            figures = (flash / 1e3, sram / 1e3, report["arena_bytes"] / 1e3, count / 1e6)
            differ = f"{exact['mismatches']} of {exact['values']}"
            print(
                f"| {name} | {case} | {differ} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |"
            )


if __name__ == "__main__":
    main()
