"""The demo and ci-tiny/resnet20 for every shipped target that runs here: mismatches, and its instruction.

python benchmarks/every_target.py [--samples 20]
"""

from __future__ import annotations

from common import compiled, parser, row
from disassembly import instructions

import hwptq
from hwptq.backends.backend import backend_of, why_not_run
from hwptq.errors import InputError
from hwptq.recipe import RECIPES
from hwptq.targets import Descriptor, load_target, target_names

command = parser(__doc__)
command.add_argument("--samples", type=int, default=20, help="samples to run the emitted code on")
command.add_argument("--targets", default=",".join(target_names()))
command.add_argument("--cases", default="demo,resnet20")


def why_not(target: Descriptor) -> str | None:
    """Why programs for a target can't be built or run here."""
    try:
        backend_of(target).check()
    except InputError as error:
        return str(error)
    return why_not_run(target)


def main() -> None:
    """One row for each target and case."""
    args = command.parse_args()
    for name in args.targets.split(","):
        target = load_target(name)
        if reason := why_not(target):
            print(f"left out: {name}: {reason}")
            continue
        for case in args.cases.split(","):
            options = hwptq.Options(samples=args.samples, recipe=RECIPES["fast"])  # the code is the same
            with compiled(case, name, args.data, options) as model:
                exact, cover = model.report["bit_exact"], model.report["coverage"]
                functions = instructions(next(model.folder.glob("*.o")), target.toolchain.objdump)
            wanted = target.toolchain.instruction
            count = sum(code.count(wanted) for code in functions.values())
            found = f"{count} {wanted} in the disassembly" if wanted else "no instruction promised"
            share = 100 * cover["macs_quantized"] / cover["macs_total"]
            figure = (
                f"{exact['mismatches']} of {exact['values']} values differ ({exact['samples']} samples, "
                f"{exact['executor']}); {share:g} % of MACs in integers; {found}"
            )
            good = exact["mismatches"] == 0 and exact["values"] > 0 and (count > 0 or not wanted)
            row(f"{case}, {name}", figure, good)


if __name__ == "__main__":
    main()
