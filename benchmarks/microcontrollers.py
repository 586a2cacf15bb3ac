"""Models for microcontrollers, run by qemu's boards: mismatches, memory, and instructions of an inference.

    python benchmarks/microcontrollers.py --data DATA [--targets arm-cortex-m4] [--cases demo,tiny-kws]

Counts are differences between runs on one sample and on three, so that the start cancels; reading the sample
and writing the outputs is in them. SRAM is the arena, the buffers of input and output, and the stack. Of a
module of WebAssembly, which has neither, flash is the size of its file and SRAM its linear memory, constants
among it.
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

_MEMORY_SECTION, _PAGE = 5, 65536
command = parser(__doc__)
command.add_argument("--samples", type=int, default=100, help="samples to compare bit for bit")
command.add_argument("--targets", default="arm-cortex-m4,arm-cortex-m55,riscv32-imc,wasm32-simd")
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


def memory(model: hwptq.CompiledModel) -> tuple[int, int]:
    """Bytes of flash and of SRAM."""
    regions = model.report["regions"]
    if not regions:
        module = (model.folder / model.program.command[-1]).with_suffix("")
        return module.stat().st_size, linear_memory(module.read_bytes())
    flash = sum(r["used"] for r in regions if {"code", "constants"} & {*r["holds"]})
    return flash, sum(r["used"] for r in regions if {"data", "arena"} & {*r["holds"]})


def linear_memory(module: bytes) -> int:
    """Bytes of memory that a module of WebAssembly begins with: pages of 64 KiB in its section 5."""
    at = 8

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = module[at]
            value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
            if byte < 0x80:
                return value

    while at < len(module):
        section, size = number(), number()
        if section == _MEMORY_SECTION:
            _count, _flags, pages = number(), number(), number()
            return pages * _PAGE
        at += size
    return 0


def main() -> None:
    """One row for each target and case; the process fails where a value differs."""
    args, failed = command.parse_args(), False
    print("| target | model | differ | flash kB | SRAM kB | arena kB | million instructions |")
    print("|---|---|---|---|---|---|---|")
    for name in args.targets.split(","):
        for case in args.cases.split(","):
            options = hwptq.Options(samples=args.samples, recipe=RECIPES["fast"])
            with compiled(case, name, args.data, options) as model:
                report, (flash, sram) = model.report, memory(model)
                counted = f"{instructions(model).total() / 1e6:.2f}" if report["regions"] else "-"
            exact, kilobytes = report["bit_exact"], (flash, sram, report["arena_bytes"])
            figures = " | ".join(f"{figure / 1e3:.2f}" for figure in kilobytes)
            differ, failed = f"{exact['mismatches']} of {exact['values']}", failed or exact["mismatches"] > 0
            print(f"| {name} | {case} | {differ} | {figures} | {counted} |", flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
