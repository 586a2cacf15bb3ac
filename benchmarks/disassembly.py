"""The promised instruction in every convolution and dense kernel, and no float arithmetic in the kernels.

python benchmarks/disassembly.py tiny-kws --target x86-64-vnni
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from common import CASES, compiled, parser, row

import hwptq
from hwptq.targets import load_target

#: Float arithmetic on the vector and scalar units of Arm, x86-64 and Hexagon.
FLOAT = re.compile(
    r"^(fmul|fmla|fmls|fmadd|fmsub|fadd|fsub|fdiv|v?(mul|add|sub|div|fn?m(add|sub)\d+)[ps][sd])\b"
    r"|\b[sd]f(add|sub|mpy|recipa)\("
)
#: Kernels of layers with weights; one that is left to portable code has the name too.
WEIGHTED = re.compile(r"hwptq_(conv2d|dense)_")
#: The only functions that may compute in float: those at the border of a model.
BORDER = ("quantize", "dequantize")
command = parser(__doc__)
command.add_argument("case", choices=list(CASES))
command.add_argument("--target", default="arm-cortex-a")


def instructions(path: Path, objdump: tuple[str, ...]) -> dict[str, list[str]]:
    """The instructions of every function of an object file."""
    listing = subprocess.run(
        [*objdump, "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    )
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in listing.stdout.splitlines():
        if start := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            current = found.setdefault(start[1], [])
        elif code := re.match(r"\s+[0-9a-f]+:\s+(?:\{\s*)?(\S.*)", line):
            current.append(code[1])
    return found


def main() -> None:
    """Compile a case and look into its object file."""
    args = command.parse_args()
    target = load_target(args.target)
    with compiled(args.case, args.target, args.data, hwptq.Options(samples=1)) as model:
        functions = instructions(next(model.folder.glob("*.o")), target.toolchain.objdump)
    wanted = re.compile(rf"\b{target.toolchain.instruction}")
    counts = {name: sum(bool(wanted.search(c)) for c in code) for name, code in functions.items()}
    without = [name for name, count in counts.items() if WEIGHTED.search(name) and not count]
    float_code = [
        name
        for name, code in functions.items()
        if any(FLOAT.match(c) for c in code) and not any(border in name for border in BORDER)
    ]
    figure = (
        f"{sum(counts.values())} {target.toolchain.instruction} in {sum(map(bool, counts.values()))} of "
        f"{len(functions)} functions; convolutions and dense without it: {', '.join(without) or 'none'}; "
        f"float arithmetic outside quantize and dequantize: {', '.join(float_code) or 'none'}"
    )
    row(
        f"disassembly of {args.case}, {args.target}",
        figure,
        any(counts.values()) and not without + float_code,
    )


if __name__ == "__main__":
    main()
