"""Instructions of an inference beside CMSIS-NN's functions for int8, on the boards that qemu emulates.

    git clone https://github.com/ARM-software/CMSIS-NN
    python benchmarks/cmsis_nn.py --cmsis CMSIS-NN --data DATA [--targets arm-cortex-m4] [--cases tiny-kws]

The layers of the models are computed by CMSIS-NN (benchmarks/cmsis/models.c), compiled with -Ofast; what ours
take includes reading a sample and quantizing it. One plug-in counts both, as the difference between runs.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from common import compiled, parser
from microcontrollers import instructions

import hwptq
from hwptq.backends.static_c.instruction_counter import InstructionCounter
from hwptq.backends.static_c.runtime import link_program
from hwptq.recipe import RECIPES
from hwptq.targets import Descriptor, load_target

BOUND = 0.8
KINDS = ("Convolution", "NNSupport", "FullyConnected", "Pooling", "BasicMath", "Transpose", "Pad", "Reshape")
NAMES = {"tiny-kws": "KWS", "resnet8": "RESNET8"}
command = parser(__doc__)
command.add_argument("--cmsis", type=Path, required=True, help="a checkout of CMSIS-NN")
command.add_argument("--targets", default="arm-cortex-m4,arm-cortex-m55")
command.add_argument("--cases", default=",".join(NAMES))


def objects(cmsis: Path, target: Descriptor, folder: Path) -> list[str]:
    """CMSIS-NN's functions for int8, compiled."""
    files = [f for kind in KINDS for f in (cmsis / "Source" / f"{kind}Functions").glob("*.c")]
    made = []
    for file in (f for f in files if "s8" in f.stem or "q7" in f.stem or "s4" in f.stem):
        made.append(str(folder / f"{file.stem}.o"))
        subprocess.run([*compiler(cmsis, target), "-c", str(file), "-o", made[-1]], check=True)
    return made


def compiler(cmsis: Path, target: Descriptor) -> list[str]:
    """The target's, with what CMSIS-NN is compiled with."""
    usual = [word for word in target.toolchain.compiler if word not in ("-ffreestanding", "-fno-builtin")]
    return [*usual, "-Ofast", "-ffunction-sections", "-include", "stdint.h", f"-I{cmsis / 'Include'}"]


def theirs(case: str, cmsis: Path, target: Descriptor, made: list[str], folder: Path) -> int:
    """Instructions of one inference of a case by CMSIS-NN."""
    counter, counts = InstructionCounter(target.toolchain.run, folder), []
    source = Path(__file__).parent / "cmsis" / "models.c"
    for runs in (1, 3):
        obj, program = folder / f"{case}{runs}.o", folder / f"{case}{runs}"
        flags = [f"-D{NAMES[case]}", f"-DRUNS={runs}", "-c", str(source), "-o", str(obj)]
        subprocess.run([*compiler(cmsis, target), *flags], check=True)
        link_program(target, [str(obj), *made, "-Wl,--gc-sections"], program, folder)
        counts.append(counter.count([program], b"").total())
    return (counts[1] - counts[0]) // 2


def main() -> None:
    """One row for each target and case; the process fails where a ratio exceeds the bound."""
    args, worst = command.parse_args(), 0.0
    print("| target | model | ours, million instructions | CMSIS-NN | ratio |")
    print("|---|---|---|---|---|")
    for name in args.targets.split(","):
        target = load_target(name)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            made = objects(args.cmsis.resolve(), target, folder)
            for case in args.cases.split(","):
                peer = theirs(case, args.cmsis.resolve(), target, made, folder)
                options = hwptq.Options(samples=3, recipe=RECIPES["fast"])
                with compiled(case, name, args.data, options) as model:
                    own = instructions(model).total()
                worst = max(worst, own / peer)
                print(
                    f"| {name} | {case} | {own / 1e6:.2f} | {peer / 1e6:.2f} | {own / peer:.2f} |", flush=True
                )
    raise SystemExit(worst > BOUND)


if __name__ == "__main__":
    main()
