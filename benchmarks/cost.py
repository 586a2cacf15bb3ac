"""What quantizing by a recipe costs: seconds of each stage, processor time, peak memory.

python benchmarks/cost.py imagenet-mobilenetv1-075 --recipe default --images 100
"""

from __future__ import annotations

import resource
import time

from common import CASES, parser, row
from emitted import open_case

import hwptq
from hwptq.pipeline.stages import quantize
from hwptq.pipeline.step import Job
from hwptq.progress import Progress
from hwptq.recipe import RECIPES
from hwptq.targets import load_target

SECONDS, MEGABYTES = 180, 3000
command = parser(__doc__)
command.add_argument("case", choices=list(CASES))
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("--recipe", choices=list(RECIPES), default="default")
command.add_argument("--images", type=int, default=100, help="calibrate on the first N images")
command.add_argument("--granularity", choices=["tensor", "channel"], default="channel")


def main() -> None:
    """Quantize once in this process; processor time does not depend on what else the machine does."""
    args = command.parse_args()
    case, progress = open_case(args.case, args.data, None), Progress()
    options = hwptq.Options(args.granularity, recipe=RECIPES[args.recipe])
    start = time.process_time()
    data = case.calibration.take(args.images)
    quantize(case.model.module, Job(load_target(args.target), data, options, progress))
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
    stages = ", ".join(f"{name} {wall:.0f}" for name, wall in progress.seconds.items())
    figure = f"{seconds:.0f} s of processor time, peak {peak} MB (wall clock by stage: {stages})"
    good = seconds <= SECONDS and peak <= MEGABYTES
    row(f"{args.case}, {args.recipe}, per {args.granularity}, {args.images} images", figure, good)


if __name__ == "__main__":
    main()
