"""Random networks, each for one of the targets whose code is LLVM's: imported right, the same bits, and no
poor result without a warning."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from case import Kind, Outcome, Run
from integer_targets import INTEGER_TARGETS
from random_networks import LAYERS, random_network

import hwptq
from hwptq.backends.backend import backend_of
from hwptq.errors import InputError
from hwptq.targets import load_target

_POOR = 15.0  # dB
_PRECISIONS = (None, None, "w8a16", "w8a16", "w8a16", "w4a16", "w8a8", "w4a8")
_THREADS = (1, 1, 1, 2, 4)


class Networks(Kind):
    """Compiled, run natively or under the emulator where either is there, and compared with the reference."""

    name = "networks"

    def prepare(self, chance: random.Random, folder: Path) -> Run:
        target = _buildable(chance.randrange(len(INTEGER_TARGETS)))
        proto, data = random_network(chance)
        options = _options(chance, target, [n.name for n in proto.graph.node if n.op_type in LAYERS])
        onnx.save(proto, folder / "model.onnx")
        np.savez(folder / "data.npz", **data)

        def run() -> None:
            files = folder / "model.onnx", target, folder / "data.npz"
            report = hwptq.compile(*files, output=folder / "out", **options).report
            accuracy, told = report["accuracy"], report["warnings"] or report["caution"]
            ratio = accuracy.get("emitted", accuracy.get("reference"))
            assert accuracy["metric"] != "sqnr_db" or ratio is None or ratio >= _POOR or told, ratio
            compared = report["import_check"]["values"] or report["import_check"]["reason"]
            values = report["bit_exact"]["values"]
            print(f"{target} {options}: {values} values, {ratio} dB, import: {compared}")

        return run

    def judge(self, outcome: Outcome) -> str:
        if "was imported" in outcome.stderr:
            return outcome.stderr
        return super().judge(outcome)


def _options(chance: random.Random, target: str, layers: Sequence[str]) -> dict[str, Any]:
    """A recipe, dtypes and threads, as far as the target has them: int16 activations as often as int8."""
    precision, threads = chance.choice(_PRECISIONS), chance.choice(_THREADS)
    recipe = "fast" if precision else chance.choice(["fast", "default"])  # which widens, without a precision
    lower, excluded = chance.random() < 0.5, chance.choice([None, None, f"^{chance.choice(layers)}$"])
    several = _has_its_tools(target, threads)
    return {
        "recipe": recipe, "threads": threads if several else 1, "precision": precision,
        "lower_ends": bool(precision) and lower, "exclude": excluded if precision else None,
    }  # fmt: skip


def _buildable(drawn: int) -> str:
    """The target drawn, or the next one whose compiler and emulator are here: without them a network would
    count as refused, and nothing of it would have been tried."""
    return next(name for name in (*INTEGER_TARGETS[drawn:], *INTEGER_TARGETS[:drawn]) if _has_its_tools(name))


def _has_its_tools(target: str, threads: int = 1) -> bool:
    try:
        backend_of(load_target(target)).check(threads)
    except InputError:
        return False
    return True
