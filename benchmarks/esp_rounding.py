"""Our roundings beside ESP-PPQ's: differing values of sums that are brought to int8.

    python -m venv esp && esp/bin/pip install esp-ppq torch
    PYTHONPATH=. esp/bin/python benchmarks/esp_rounding.py [--values 60000]

ESP-PPQ rounds products of sums and multipliers by policies of its own. As float64 these are exact: sums have
up to 21 bits, multipliers 31, and what divides them is a power of two. Many of the results are halves.
Of hwptq only quant/fixed_point.py is needed, which all emitted code equals.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from esp_ppq.core import RoundingPolicy
from esp_ppq.utils.round import ppq_tensor_round

from hwptq.quant.fixed_point import requantize

CHANNELS = 64
POLICIES = {
    "half-even": RoundingPolicy.ROUND_HALF_EVEN,
    "half-up": RoundingPolicy.ROUND_HALF_UP,
    "half-away": RoundingPolicy.ROUND_HALF_FAR_FORM_ZERO,
}


def sums(rng: np.random.Generator, pixels: int, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """int32 [pixels, channels] of less than 2^21: results within int8 and beyond it, and halves."""
    step = 2.0 ** (31 + shift) / multiplier
    results = rng.uniform(-160, 160, (pixels, CHANNELS))
    halves = rng.random(results.shape) < 1 / 3
    wanted = np.where(halves, np.floor(results) + 0.5, results)
    return np.clip(np.rint(wanted * step), 1 - 2**21, 2**21 - 1).astype(np.int32)


def main() -> None:
    """One line for each rounding; the process fails where a value differs."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("--values", type=int, default=60_000, help="of each rounding")
    args, failed = command.parse_args(), False
    for number, (name, policy) in enumerate(POLICIES.items()):
        rng = np.random.default_rng(number)
        shift = rng.integers(2, 14, CHANNELS)
        multiplier = rng.integers(2**30, 2**31, CHANNELS)
        multiplier[::2] = 2**30  # scales that are powers of two: halves
        acc, zero = sums(rng, -(-args.values // CHANNELS), multiplier, shift), -5
        exact = torch.from_numpy(acc.astype(np.float64) * multiplier / 2.0 ** (31 + shift))
        theirs = np.clip(ppq_tensor_round(exact, policy).numpy() + zero, -128, 127)
        ours = requantize(acc, multiplier, shift, zero, -128, 127, rounding=name)
        steps = requantize(acc, multiplier, shift, zero, -128, 127)
        halves = np.count_nonzero(exact.numpy() % 1 == 0.5)
        differ, other = np.count_nonzero(ours != theirs), np.count_nonzero(steps != theirs)
        print(f"{name}: {differ} of {ours.size} differ, {halves} are halves; by steps {other} would")
        failed |= bool(differ)
    sys.exit(failed)


if __name__ == "__main__":
    main()
