"""What recipes lose on calibration images that they were not calibrated on; needs no labels.

python benchmarks/held_out.py imagenet-squeezenet11 default default,rounding=nearest --calibrate 50
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from common import CASES, parser
from emitted import Opened, emitted_outputs, open_case

import hwptq
from hwptq.data.dataset import Sample, from_batches
from hwptq.evaluate.interpret import Interpreter
from hwptq.pipeline.stages import Quantized, insert, prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import recipe
from hwptq.search.choose import Chooser
from hwptq.search.wishes import wished
from hwptq.targets import Descriptor, load_target

command = parser(__doc__)
command.add_argument("case", choices=list(CASES))
command.add_argument("recipes", nargs="+", help="a recipe and its settings, such as best,observer=mse")
command.add_argument("--target", default="x86-64-vnni", help="name or file; its code must run here")
command.add_argument("--precision", help="w8a8, w4a8 …; the target's first choice if not given")
command.add_argument("--granularity", choices=["tensor", "channel", "group"], default="channel")
command.add_argument(
    "--lower-ends", action="store_true", help="--precision for the first and last layers too"
)
command.add_argument(
    "--calibrate", type=int, default=60, help="images to calibrate on; the others are held out"
)
command.add_argument("--last", action="store_true", help="calibrate on the last images, not on the first")


def divided(case: Opened, count: int, last: bool) -> Opened:
    """The case with its calibration data cut in two: to calibrate on, and to evaluate on."""
    samples: list[Sample] = list(case.calibration)
    samples = samples[::-1] if last else samples
    first, held = ([s.inputs for s in part] for part in (samples[:count], samples[count:]))
    inputs = case.model.inputs
    return replace(case, calibration=from_batches(first, inputs), evaluation=from_batches(held, inputs))


def quantized(case: Opened, device: Descriptor, options: hwptq.Options) -> Quantized:
    """As hwptq.compile quantizes, without a search."""
    job = Job(device, case.calibration, options)
    prepared = prepare(case.model.module, job)
    if wished(options):
        prepared = Chooser(prepared, job).choose().recorded(prepared)
    return insert(prepared, job)


def lost(exact: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> str:
    """SQNR of the logits less their mean in dB, mean KL divergence in nats, agreement in percent."""
    x, y = (np.concatenate([a.reshape(1, -1) for a in part]).astype(np.float64) for part in (exact, found))
    x, y = (a - a.mean(axis=1, keepdims=True) for a in (x, y))
    p, q = (a - np.log(np.exp(a).sum(axis=1, keepdims=True)) for a in (x, y))
    sqnr = 10 * np.log10((x**2).sum() / ((x - y) ** 2).sum())
    divergence = (np.exp(p) * (p - q)).sum(axis=1).mean()
    return f"{sqnr:.2f} | {divergence:.5f} | {100 * np.mean(x.argmax(axis=1) == y.argmax(axis=1)):.1f}"


def main() -> None:
    """One row for each recipe."""
    args = command.parse_args()
    case, device = open_case(args.case, args.data, None), load_target(args.target)
    case = divided(case, args.calibrate, args.last)
    exact = None
    print("| recipe | SQNR, dB | KL, nats | agreement, % |\n|---|---|---|---|")
    for text in args.recipes:
        name, *settings = text.split(",")
        options = hwptq.Options(
            args.granularity, args.precision, lower_ends=args.lower_ends, recipe=recipe(name, settings)
        )
        model = quantized(case, device, options)
        if exact is None:
            interpreter = Interpreter(model.float32)
            exact = [interpreter.run(sample.inputs)[0] for sample in case.evaluation]
        found = [outputs[0] for _, outputs in emitted_outputs(case, device, model)]
        print(f"| {text} | {lost(exact, found)} |", flush=True)


if __name__ == "__main__":
    main()
