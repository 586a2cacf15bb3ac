"""What is suspicious about what was compiled, and about what its code was found to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, sqrt
from typing import Any

import numpy as np

from hwptq.backends.program import Program
from hwptq.notices import Warning

from .accuracy import Score

#: The least SQNR of an output, and of each of its channels, that is not worth a word.
LEAST_DB = 15.0
_LEAST_SHARE = 0.5
_ENOUGH = 16  # samples that tell guessing from knowing


def result_warnings(
    score: Score, outputs: Sequence[str], coverage: dict[str, Any], on_calibration_data: bool
) -> list[Warning]:
    """outputs: their names; on_calibration_data: whether the score is of the data that ranges are from."""
    return [
        *_noise(score, outputs), *_chance(score), *_unread(score), *_little(coverage),
        *(_own_data(score) if on_calibration_data else ()),
    ]  # fmt: skip


def _noise(score: Score, outputs: Sequence[str]) -> Iterator[Warning]:
    """Outputs, or channels of them, of which little more than noise is left."""
    kind = "emitted" if "emitted" in score.sqnr else "reference"
    for name, whole, parts in zip(outputs, score.sqnr.get(kind, ()), score.parts.get(kind, ()), strict=False):
        db, by_channel = whole.db, parts.db
        low = np.flatnonzero(by_channel < LEAST_DB)
        if db is not None and db < LEAST_DB:
            text = (
                f"the SQNR is {db:.1f} dB, below {LEAST_DB:g}: `layers` of the report says where it is lost; "
                f"try --recipe best, or --keep-float for the nodes before it"
            )
            yield Warning("sqnr", name, text, serious=True)
        elif len(low):
            worst = int(by_channel.argmin())
            text = (
                f"{len(low)} of {len(by_channel)} channels (axis {parts.axis}) have an SQNR below "
                f"{LEAST_DB:g} dB, channel {worst} {_db(by_channel[worst])}: if they hold far smaller values "
                f"than the others, --keep-float the node that joins them"
            )
            yield Warning("sqnr", name, text, serious=True)


def _db(value: float) -> str:
    return "only noise" if value == -inf else f"{value:.1f} dB"


def _chance(score: Score) -> Iterator[Warning]:
    """A float32 model that finds no more than it would by guessing."""
    if not score.ranked or score.custom or score.samples < _ENOUGH or score.classes < 2:
        return
    chance, found = 1 / score.classes, score.hits["float32"] / score.samples
    if found <= chance + 2 * sqrt(chance * (1 - chance) / score.samples):
        text = (
            f"float32 itself is {100 * found:.1f} % correct, as guessing among {score.classes} classes is: "
            f"check the preprocess file and the labels"
        )
        yield Warning("chance", "", text, serious=True)


def _unread(score: Score) -> Iterator[Warning]:
    """Labels that the score does not read."""
    if score.unread and not score.custom:
        text = (
            f"{score.unread}: the score is SQNR, which reads no labels; give the numbers of classes in y, "
            f"or a --metric"
        )
        yield Warning("labels", "", text)


def _little(coverage: dict[str, Any]) -> Iterator[Warning]:
    """Less than half of the multiply-accumulates quantized."""
    total, done = coverage["macs_total"], coverage["macs_quantized"]
    if total and done < _LEAST_SHARE * total:
        text = (
            f"{100 * done / total:.0f} % of the multiply-accumulates are quantized: `nodes_float` of the "
            f"report has the reasons of the others"
        )
        yield Warning("coverage", "", text, serious=not done)


def prompt_warnings(steps_alone: str) -> list[Warning]:
    """A prompt that nothing has compared with its steps. steps_alone: see Evidence."""
    if not steps_alone:
        return []
    text = (
        f"{steps_alone} runs steps alone, so nothing has compared the prompt with them: compile without --on "
        f"first, where the code runs here"
    )
    return [Warning("prompt", "", text)]


def library_warnings(program: Program) -> list[Warning]:
    """A library that is not written, though the target has one."""
    if not program.library_left_out:
        return []
    text = (
        f"model.so is not written: TVM holds constants several times to write them, and these take "
        f"{program.weight_bytes / 1e9:.1f} GB; the program and lib<name>.so have them (hwptq.load)"
    )
    return [Warning("library", "", text)]


def _own_data(score: Score) -> Iterator[Warning]:
    """A score of samples that the ranges were taken from."""
    if score.ranked or score.custom:
        text = "the score is of the calibration data, which flatters it: give --evaluation-data"
        yield Warning("same-data", "", text)
