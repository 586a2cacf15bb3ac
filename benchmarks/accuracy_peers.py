"""ONNX Runtime's static quantization and hwptq on the same model and data, both on integer kernels.

python benchmarks/accuracy_peers.py imagenet-mobilenetv1-075 --target x86-64-vnni
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_runtime
from common import CASES, parser
from emitted import Opened, emitted_top1, open_case, session_top1
from models import Case

import hwptq
from hwptq.recipe import RECIPES

command = parser(__doc__)
command.add_argument("case", choices=[name for name, case in CASES.items() if case.bound is not None])
command.add_argument("--target", default="x86-64-vnni", help="one whose code runs on this machine")
command.add_argument("--samples", type=int, help="the first N samples only")
command.add_argument("--recipe", choices=list(RECIPES), default="default")


def peer_top1(case: Opened, per_channel: bool) -> float:
    """Top-1 of the model that ONNX Runtime quantizes: MinMax, uint8 activations, int8 weights."""
    with tempfile.TemporaryDirectory() as folder:
        samples = tuple(sample.inputs for sample in case.calibration)
        files = Case("peer", case.path, samples)
        return session_top1(case, onnx_runtime.quantize(files, Path(folder), per_channel=per_channel))


def main() -> None:
    """A row for each tool, a column for each granularity of the weights."""
    args = command.parse_args()
    case = open_case(args.case, args.data, args.samples)
    options = [hwptq.Options(g, recipe=RECIPES[args.recipe]) for g in ("tensor", "channel")]
    peer = [peer_top1(case, per_channel) for per_channel in (False, True)]
    ours = [emitted_top1(case, args.target, o)[0] for o in options]
    print(f"{args.case}: fp32 {session_top1(case, case.path):.2f} % top-1\n")
    print("| W8A8, top-1 % | per tensor | per channel |\n|---|---|---|")
    print(f"| ONNX Runtime, static, MinMax | {peer[0]:.2f} | {peer[1]:.2f} |")
    print(f"| hwptq, recipe {args.recipe}, {args.target} | {ours[0]:.2f} | {ours[1]:.2f} |")


if __name__ == "__main__":
    main()
