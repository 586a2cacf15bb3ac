"""hwptq diagnose on models with a planted cause: is its remedy the first, and what does it restore?

python benchmarks/diagnosis.py [mobilenetv1-075] [nanodet] [minilm] [--target x86-64-vnni]

Seconds are of the processor, so that other work on the machine does not count.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, row
from sentence_similarity import sentences

import hwptq

ENOUGH, SECONDS = 0.9, 300  # of the loss restored; less than three minutes on two cores
SENTENCES = 32


@dataclass(frozen=True)
class Planted:
    """A model of the data folder, the options that make it lose, and what mends it."""

    folder: str
    words: dict[str, Any]
    remedies: tuple[str, ...]  # beginnings of the arguments of any that is right
    worst: tuple[str, ...] = ()  # operators, of which the node that loses most is one; none: any
    descriptor: str = ""  # what the target has instead


CASES = {
    "mobilenetv1-075": Planted(
        "imagenet-mobilenetv1-075",
        {
            "weight_granularity": "tensor",
            "recipe": hwptq.Recipe.named("default", equalize="off", rounding="nearest"),
        },
        ("--weight-granularity channel", "--set equalize=on"),
    ),
    # the heads' results in bytes, as they come
    "nanodet": Planted("coco-nanodet-m", {}, ("--keep-float", "--precision w8a16")),
    # residual sums in bytes
    "minilm": Planted(
        "sts-minilm-l6",
        {"axes": {"S": 64}},
        ("--keep-float", "--precision w8a16"),
        ("add",),
        '[[op]]\nop = "layer_norm"\npairs = [["int8", "int8"]]\n',
    ),
}

command = parser(__doc__)
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))


def main() -> None:
    """Diagnose each case, print the first remedy and what it restores."""
    args = command.parse_args()
    for name in args.cases:
        case, start = CASES[name], time.process_time()
        found = diagnosed(args.data / case.folder, case, args.target)
        seconds, first, worst = time.process_time() - start, found.remedies[0], found.losses[0].place
        line = " ".join(first.arguments)
        right = line.startswith(case.remedies) and (first.restored or 0.0) >= ENOUGH
        right = right and (not case.worst or worst.kind in case.worst)
        figure = (
            f"{worst.name} ({worst.kind}) loses most; {line} restores {100 * (first.restored or 0.0):.1f} % "
        )
        figure += f"of what is lost; {seconds:.0f} s"
        row(f"diagnosis of {name}", figure, right and seconds <= SECONDS)


def diagnosed(folder: Path, case: Planted, target: str) -> hwptq.Diagnosis:
    """The diagnosis of a model as its folder has it."""
    data: tuple[Any, ...] = (folder / "calibration", folder / "evaluation", folder / "preprocess.toml")
    if not data[0].is_dir():
        data = _sentences(folder)
    with tempfile.TemporaryDirectory() as place:
        if case.descriptor:
            own = Path(place, "planted.toml")
            own.write_text(_OWN.format(target=target) + case.descriptor, encoding="utf-8")
            target = str(own)
        return hwptq.diagnose(folder / "model.onnx", target, *data, **case.words)


_OWN = 'schema = 1\nname = "planted"\nsummary = "a cause of loss"\nextends = "{target}"\n'


def _sentences(folder: Path) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Calibration and evaluation data: sentences, without scores."""
    os.environ["HWPTQ_STS"] = str(folder)
    calibration = np.load(folder / "calib.npz")
    first = [{k: calibration[k][i : i + 1] for k in calibration} for i in range(SENTENCES)]
    other = [{k: v for k, v in s.items() if k != "y"} for s in islice(sentences(), 2 * SENTENCES)]
    return first, other


if __name__ == "__main__":
    main()
