"""What each step of a recipe is worth, alone and together: top-1 of emitted code.

python benchmarks/ablation.py imagenet-mobilenetv1-075 --target x86-64-vnni
"""

from __future__ import annotations

from common import CASES, parser
from emitted import emitted_top1, open_case, session_top1

import hwptq
from hwptq.recipe import recipe

#: Settings on top of the recipe "fast", which only rounds to nearest.
ROWS: tuple[tuple[str, ...], ...] = (
    (),
    ("equalize=on",),
    ("correct_bias=on",),
    ("equalize=on", "correct_bias=on"),
    ("equalize=on", "absorb=on", "correct_bias=on"),
    ("equalize=on", "correct_bias=on", "observer=mse"),
    ("rounding=adaround",),
    ("equalize=on", "rounding=adaround"),
    ("rounding=gptq",),
    ("equalize=on", "rounding=gptq"),
    ("rounding=descent",),
    ("equalize=on", "rounding=descent"),
    ("rounding=clamped",),
    ("equalize=on", "rounding=clamped"),
)
command = parser(__doc__)
command.add_argument("case", choices=list(CASES))
command.add_argument("--target", default="x86-64-vnni", help="one whose code runs on this machine")
command.add_argument("--samples", type=int, help="the first N samples only")
command.add_argument("--precision", help="w8a8, w4a8 …; the target's first choice if not given")
GRANULARITIES = ["tensor", "channel", "group"]
command.add_argument("--granularity", choices=GRANULARITIES, nargs="+", default=GRANULARITIES[:2])


def main() -> None:
    """One row for each set of steps, one column for each granularity of the weights."""
    args = command.parse_args()
    case = open_case(args.case, args.data, args.samples)
    print(f"fp32 {session_top1(case, case.path):.2f}", flush=True)
    print(f"| steps | {' | '.join(f'per {g}' for g in args.granularity)} | seconds |")
    print("|---|" + "---|" * (len(args.granularity) + 1))
    for settings in ROWS:
        found = [
            emitted_top1(
                case,
                args.target,
                hwptq.Options(g, args.precision, recipe=recipe("fast", settings)),
            )
            for g in args.granularity
        ]
        scores = " | ".join(f"{top1:.2f}" for top1, _ in found)
        print(f"| {', '.join(settings) or 'none'} | {scores} | {found[-1][1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
