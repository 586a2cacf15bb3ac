"""hwptq diagnose on models with a planted cause: is its remedy the first, and what does it restore?

python benchmarks/diagnosis.py [mobilenetv1-075] [nanodet] [--target x86-64-vnni]
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import parser, row

import hwptq

ENOUGH, SECONDS = 0.9, 180  # of the loss restored; on two cores


@dataclass(frozen=True)
class Planted:
    """A model of the data folder, the options that make it lose, and what mends it."""

    folder: str
    words: dict[str, Any]
    remedies: tuple[str, ...]  # beginnings of the arguments of any that is right


CASES = {
    "mobilenetv1-075": Planted(
        "imagenet-mobilenetv1-075",
        {
            "weight_granularity": "tensor",
            "recipe": hwptq.Recipe.named("default", equalize="off", rounding="nearest"),
        },
        ("--weight-granularity channel", "--set equalize=on"),
    ),
    "nanodet": Planted("coco-nanodet-m", {}, ("--keep-float", "--precision w8a16")),
}

command = parser(__doc__)
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))


def main() -> None:
    """Diagnose each case, print the first remedy and what it restores."""
    args = command.parse_args()
    for name in args.cases:
        case, start = CASES[name], time.perf_counter()
        found = diagnosed(args.data / case.folder, case, args.target)
        seconds, first = time.perf_counter() - start, found.remedies[0]
        line = " ".join(first.arguments)
        right = line.startswith(case.remedies) and (first.restored or 0.0) >= ENOUGH
        figure = f"{line} restores {100 * (first.restored or 0.0):.1f} % of what is lost; {seconds:.0f} s"
        row(f"diagnosis of {name}", figure, right and seconds <= SECONDS)


def diagnosed(folder: Path, case: Planted, target: str) -> hwptq.Diagnosis:
    """The diagnosis of a model as its folder has it."""
    data = (folder / "calibration", folder / "evaluation", folder / "preprocess.toml")
    return hwptq.diagnose(folder / "model.onnx", target, *data, **case.words)


if __name__ == "__main__":
    main()
