"""Seconds to measure the sensitivity of every layer, with three candidates each.

python benchmarks/sensitivity.py imagenet-mobilenetv1-075 [--images 64]
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from common import CASES, parser, paths, row

from hwptq import measure_sensitivity
from hwptq.calibration import calibrate
from hwptq.data import open_dataset
from hwptq.importer import import_onnx
from hwptq.passes.graph.quantization_plan import WEIGHTED
from hwptq.passes.graph.uniform_variants import uniform_variants
from hwptq.preprocess import load_preprocess
from hwptq.quantize import fuse
from hwptq.targets import load_target

PAIRS = (("int8", "int8"), ("int8", "int4"), ("int4", "int4"))
BOUND = 120.0  # seconds of processor time: they do not depend on what else the machine does
command = parser(__doc__)
command.add_argument("case", choices=list(CASES))
command.add_argument("--images", type=int, default=64)


def main() -> None:
    """Measure once, from the calibrated float module on."""
    args = command.parse_args()
    files, base = paths(args.case, args.data), load_target("x86-64-avx2")
    target = replace(base, ops=tuple(replace(r, pairs=PAIRS) if r.op in WEIGHTED else r for r in base.ops))
    model = import_onnx(files["model"])
    data = open_dataset(str(files["calibration_data"]), model.inputs, load_preprocess(files["preprocess"]))
    images = list(data.take(args.images))
    float32 = fuse(model.module)
    stats = calibrate(float32, (sample.inputs for sample in images[:8]))
    wall, cpu = time.perf_counter(), time.process_time()
    variants = uniform_variants(float32, target, stats)
    found = measure_sensitivity(float32, variants, images)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = sum(len(pairs) for pairs in found.values.values())
    figure = (
        f"{wall:.1f} s ({cpu:.1f} s of CPU time on {os.cpu_count()} cores): {len(found.values)} layers, "
        f"{count} candidates, {len(images)} images, measure {found.measure}"
    )
    row(f"sensitivity of {args.case}", figure, cpu < BOUND)


if __name__ == "__main__":
    main()
