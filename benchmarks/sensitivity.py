"""Seconds to measure the sensitivity of every layer, with three candidates each, and to round their weights.

python benchmarks/sensitivity.py imagenet-mobilenetv1-075 [--images 128]
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from common import CASES, parser, paths, row

from hwptq.bitwidths.budget import Budget
from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.pipeline.stages import prepare
from hwptq.pipeline.step import Job
from hwptq.search.choose import Chooser
from hwptq.targets import load_target
from hwptq.targets.op_kinds import WEIGHTED_OPS

PAIRS = (("int8", "int8"), ("int8", "int4"), ("int4", "int4"))
BOUND = 120.0  # seconds of processor time: they do not depend on what else the machine does
command = parser(__doc__)
command.add_argument("case", choices=list(CASES))
command.add_argument("--images", type=int, default=128, help="one half is rounded to, the other measured on")


def main() -> None:
    """Measure once, from the calibrated float module on."""
    args = command.parse_args()
    files, base = paths(args.case, args.data), load_target("x86-64-avx2")
    target = replace(
        base, ops=tuple(replace(r, pairs=PAIRS) if r.op in WEIGHTED_OPS else r for r in base.ops)
    )
    model = import_onnx(files["model"])
    data = open_dataset(str(files["calibration_data"]), model.inputs, load_preprocess(files["preprocess"]))
    job = Job(target, data.take(args.images))
    prepared = prepare(model.module, job)
    wall, cpu = time.perf_counter(), time.process_time()
    chooser = Chooser(prepared, job)
    found = chooser.choose(Budget("weights", 1.0, relative=True)).sensitivity
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert found is not None
    count = sum(len(pairs) for pairs in found.values.values())
    figure = (
        f"{wall:.1f} s ({cpu:.1f} s of CPU time on {os.cpu_count()} cores): {len(found.values)} layers, "
        f"{count} candidates, {len(data)} images, measure {found.measure}"
    )
    row(f"sensitivity of {args.case}", figure, cpu < BOUND)


if __name__ == "__main__":
    main()
