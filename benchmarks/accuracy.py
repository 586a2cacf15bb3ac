"""Top-1 of emitted code against float32, and the values in which it differs from the reference.

python benchmarks/accuracy.py cifar10-resnet20 --target x86-64-avx2
"""

from __future__ import annotations

from common import CASES, compiled, parser, row

import hwptq

command = parser(__doc__)
command.add_argument("case", choices=[name for name, case in CASES.items() if case.bound is not None])
command.add_argument("--target", default="arm-cortex-a")
command.add_argument("--samples", type=int, help="the first N samples only")


def main() -> None:
    """Compile, run, compare."""
    args = command.parse_args()
    with compiled(args.case, args.target, args.data, hwptq.Options(samples=args.samples)) as model:
        cover, exact, top1 = (model.report[key] for key in ("coverage", "bit_exact", "accuracy"))
    bound = CASES[args.case].bound
    if "emitted" not in top1:
        raise SystemExit(f"{args.target}: {exact['executor']}")
    share = 100 * cover["macs_quantized"] / cover["macs_total"]
    figure = (
        f"top-1 {top1['emitted']:.2f} % emitted, {top1['float32']:.2f} % float32 (bound {bound} points); "
        f"{share:g} % of MACs in integers; {exact['mismatches']} of {exact['values']} values differ "
        f"({exact['samples']} samples, {exact['executor']})"
    )
    good = abs(top1["emitted"] - top1["float32"]) <= bound and share == 100 and exact["mismatches"] == 0
    row(f"{args.case}, {args.target}", figure, good)


if __name__ == "__main__":
    main()
