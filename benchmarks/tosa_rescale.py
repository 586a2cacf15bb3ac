"""Our rounding "half-up" and "double" beside the TOSA reference model: differing values of RESCALE.

    python -m venv tosa && tosa/bin/pip install tosa-tools numpy
    PYTHONPATH=. tosa/bin/python benchmarks/tosa_rescale.py [--values 60000]

Sums of all magnitudes, ties among them, are brought to int8 by multipliers and shifts by channel. The
reference model computes what RESCALE is defined as; of hwptq only quant/fixed_point.py is needed, which all
emitted code equals.
"""

from __future__ import annotations

import argparse
import sys
import tempfile

import numpy as np
import tosa_reference_model
from serializer.tosa_serializer import DType, Op, TosaSerializer, TosaSerializerAttribute
from tosa.RoundingMode import RoundingMode

from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT, requantize

CHANNELS = 64
MODES = {"half-up": RoundingMode.SINGLE_ROUND, "double": RoundingMode.DOUBLE_ROUND}


def rescale_by_tosa(
    acc: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, zero: int, mode: int
) -> np.ndarray:
    """RESCALE of int32 [pixels, channels] to int8; shift is what the product is shifted by."""
    with tempfile.TemporaryDirectory() as folder:
        graph = TosaSerializer(folder)
        x = graph.addPlaceholder(list(acc.shape), DType.INT32, acc)
        constants = [
            graph.addConst([len(multiplier)], DType.INT32, multiplier),
            graph.addConst([len(shift)], DType.INT8, shift.astype(np.int8)),
            graph.addConst([1], DType.INT32, np.zeros(1, np.int32)),
            graph.addConst([1], DType.INT8, np.array([zero], np.int8)),
        ]
        y = graph.addOutput(list(acc.shape), DType.INT8)
        attributes = TosaSerializerAttribute()
        attributes.RescaleAttribute(True, mode, True, False, False)
        graph.addOperator(Op.RESCALE, [x.name, *(c.name for c in constants)], [y.name], attributes)
        outputs, status = tosa_reference_model.run(bytes(graph.serialize()), [acc])
        if status != tosa_reference_model.GraphStatus.TOSA_VALID:
            sys.exit(f"the reference model says {status}")
        return np.frombuffer(outputs[0].tobytes(), np.int8).reshape(acc.shape)


def sums(rng: np.random.Generator, pixels: int, shift: np.ndarray) -> np.ndarray:
    """int32 [pixels, channels]: of results from far within int8 to far beyond it, and halves of steps."""
    reach = 2.0 ** (shift - 31 + rng.uniform(-4, 9, (pixels, len(shift))))
    acc = rng.uniform(-1, 1, reach.shape) * reach
    ties = np.where(rng.random(reach.shape) < 0.3, np.rint(acc) - np.rint(acc) % 2 + 1, acc)
    return np.clip(np.rint(ties), -ACCUMULATOR_LIMIT, ACCUMULATOR_LIMIT).astype(np.int32)


def main() -> None:
    """One line for each rounding; the process fails where a value differs."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--values", type=int, default=60_000, help="of each rounding")
    args, failed = command.parse_args(), False
    for name, mode in MODES.items():
        rng = np.random.default_rng(len(name))
        pixels = -(-args.values // CHANNELS)
        shift = rng.integers(32, 52, CHANNELS)
        multiplier = rng.integers(2**30, 2**31, CHANNELS).astype(np.int32)
        multiplier[::4] = 2**30  # scales that are powers of two: ties
        acc, zero = sums(rng, pixels, shift), -5
        theirs = rescale_by_tosa(acc, multiplier, shift, zero, mode)
        ours = requantize(acc, multiplier, shift - 31, zero, -128, 127, rounding=name)
        steps = requantize(acc, multiplier, shift - 31, zero, -128, 127)
        differ, other = np.count_nonzero(ours != theirs), np.count_nonzero(steps != theirs)
        inside = np.count_nonzero(np.abs(theirs.astype(int)) < 127)
        print(
            f"{name}: {differ} of {ours.size} differ, {inside} inside of the limits; by steps {other} would"
        )
        failed |= differ > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
