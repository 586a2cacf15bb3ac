"""The promised instruction in the kernels, and no float arithmetic in them.

python benchmarks/disassembly.py tiny-kws --target x86-64-vnni
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from common import CASES, compiled, parser, row

import hwptq
from hwptq.targets import load_target

#: Mnemonics of float arithmetic on the vector and scalar units of Arm and x86-64.
FLOAT = re.compile(
    r"^(fmul|fmla|fmls|fmadd|fmsub|fadd|fsub|fdiv|v?(mul|add|sub|div|fn?m(add|sub)\d+)[ps][sd])\b"
)
#: The only functions that may compute in float: those at the border of a model.
BORDER = ("quantize", "dequantize")
command = parser(__doc__)
command.add_argument("case", choices=list(CASES))
command.add_argument("--target", default="arm-cortex-a")


def instructions(path: Path, objdump: tuple[str, ...]) -> dict[str, list[str]]:
    """The mnemonics of every function of an object file."""
    listing = subprocess.run(
        [*objdump, "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    )
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in listing.stdout.splitlines():
        if start := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            current = found.setdefault(start[1], [])
        elif code := re.match(r"\s+[0-9a-f]+:\s+(\S+)", line):
            current.append(code[1])
    return found


def main() -> None:
    """Compile a case and look into its object file."""
    args = command.parse_args()
    target = load_target(args.target)
    with compiled(args.case, args.target, args.data, hwptq.Options(samples=1)) as model:
        functions = instructions(next(model.folder.glob("*.o")), target.toolchain.objdump)
    wanted = target.toolchain.instruction
    count = sum(code.count(wanted) for code in functions.values())
    float_code = [
        name
        for name, code in functions.items()
        if any(FLOAT.match(c) for c in code) and not any(border in name for border in BORDER)
    ]
    figure = (
        f"{count} {wanted} in {sum(wanted in code for code in functions.values())} of {len(functions)} "
        "functions; "
        f"float arithmetic outside quantize and dequantize: {', '.join(float_code) or 'none'}"
    )
    row(f"disassembly of {args.case}, {args.target}", figure, count > 0 and not float_code)


if __name__ == "__main__":
    main()
