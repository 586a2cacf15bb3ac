"""Instructions of every model for every CPU target that an emulator here counts, against a committed table.

    python benchmarks/guard.py [--data DATA] [--models demo,tiny-kws] [--targets arm-cortex-a] [--update]

One inference, one thread, recipe `fast`, counted in the kernels of the program by qemu's plug-in. A count
that differs from guard.json by more than 0.5 % either way ends with exit code 1, and so does one that is not
in it; --update writes what was counted instead. Transformers are not among the models, nor targets that no
emulator of processes executes: x86-64 with AVX-512, AVX-VNNI or AMX, WebAssembly, and what has no operating
system.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from common import CASES, ROOT, parser, paths
from models import Case
from programs import build

from hwptq.backends.static_c.instruction_counter import InstructionCounter, counts_under
from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.errors import HwptqError
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.targets import load_target

TABLE = ROOT / "benchmarks" / "guard.json"
_TOLERANCE = 0.005
_SAMPLES = 16
#: target -> what runs its programs here, where that is not its own emulator
_EMULATORS = {"x86-64-avx2": ("qemu-x86_64", "-cpu", "max")}
TARGETS = (
    "arm-cortex-a",
    "arm-cortex-a-i8mm",
    "arm-cortex-a53",
    "hexagon-v66-npu",
    "riscv64-rvv",
    "x86-64-avx2",
)

#: model -> target -> instructions
Table = dict[str, dict[str, int]]


def load(name: str, data: Path) -> Case:
    """A case with samples of its calibration data. Exits where its files are absent."""
    files = paths(name, data)
    model, preprocess = files["model"], files["preprocess"]
    assert model is not None
    rules = load_preprocess(preprocess) if preprocess else None
    dataset = open_dataset(files["calibration_data"], import_onnx(model).inputs, rules)
    return Case(name, model, tuple(sample.inputs for sample in dataset.take(_SAMPLES)))


def count(case: Case, name: str, folder: Path) -> int:
    """Instructions of one inference for target `name`, in the kernels. HwptqError if nothing counts."""
    target = load_target(name)
    emulator = _EMULATORS.get(name, target.toolchain.run)
    if not counts_under(emulator) or shutil.which(emulator[0]) is None:
        raise HwptqError(f"{name}: {emulator[0] if emulator else 'no emulator'} does not count here")
    built = build(case, target, folder)
    assert built.program is not None
    data = b"".join(np.ascontiguousarray(case.samples[0][t.name], t.dtype).tobytes() for t in built.inputs)
    once = InstructionCounter(emulator, folder).count([built.program.resolve()], data)
    return sum(n for function, n in once.items() if function.startswith(f"{built.program.name}_"))


def counted(models: Sequence[str], targets: Sequence[str], data: Path) -> Iterator[tuple[str, str, int]]:
    """(model, target, instructions) of all that can be counted; the rest is named on standard error."""
    for model in models:
        case = load(model, data)
        for target in targets:
            with tempfile.TemporaryDirectory(prefix="hwptq-") as folder:
                try:
                    yield model, target, count(case, target, Path(folder))
                except HwptqError as error:
                    print(f"not counted: {model} for {error}", file=sys.stderr)


def judged(found: int, model: str, target: str, table: Mapping[str, Mapping[str, int]]) -> str:
    """What is wrong with a count; "" if nothing is."""
    known = table.get(model, {}).get(target)
    if known is None:
        return "is not in the table: --update"
    change = found / known - 1
    return f"{change:+.2%} of {known:,} in the table" if abs(change) > _TOLERANCE else ""


def main() -> None:
    command = parser(__doc__)
    command.formatter_class = argparse.RawTextHelpFormatter
    command.add_argument("--models", default=",".join(CASES))
    command.add_argument("--targets", default=",".join(TARGETS))
    command.add_argument("--update", action="store_true")
    options = command.parse_args()
    table: Table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    wrong = 0
    for model, target, found in counted(options.models.split(","), options.targets.split(","), options.data):
        fault = "" if options.update else judged(found, model, target, table)
        wrong += bool(fault)
        print(f"{model:26} {target:20} {found:14,} {fault}", flush=True)
        if options.update:
            table.setdefault(model, {})[target] = found
            TABLE.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
