"""The data of a command, opened: what is calibrated on, and what is evaluated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwptq.data.data_warnings import data_warnings
from hwptq.data.dataset import Dataset, from_batches, open_dataset
from hwptq.data.fixed_values import fixed_warnings
from hwptq.data.made_up import MADE_UP, made_up
from hwptq.data.preprocess import Preprocess, load_preprocess
from hwptq.notices import Warning

from .errors import InputError
from .frontends.model import Model
from .options import Options


@dataclass(frozen=True)
class OpenedData:
    """The data of a compilation. validation: what a search for --max-drop measures on; own: whether there are
    samples for the evaluation alone."""

    calibration: Dataset | None
    evaluation: Dataset
    validation: Dataset
    preprocess: Preprocess | None
    own: bool
    warnings: Sequence[Warning]

    @classmethod
    def opened(cls, model: Model, given: Mapping[str, Any], options: Options) -> OpenedData:
        """given: calibration, evaluation and preprocess, as a user gives them. Raises InputError."""
        preprocess = given["preprocess"]
        if isinstance(preprocess, str | Path):
            preprocess = load_preprocess(preprocess)
        calibration, evaluation = datasets(
            model, given["calibration"], given["evaluation"], preprocess, options
        )
        validation = _opened(options.validation_data, model, preprocess) or evaluation
        other = fixed_warnings(options.fixed, (given["calibration"], given["evaluation"]))
        warnings = [*data_warnings(calibration, evaluation), *other]
        if given["calibration"] is None and given["evaluation"] is None:
            warnings.append(MADE_UP)
        return cls(calibration, evaluation, validation, preprocess, given["evaluation"] is not None, warnings)


def datasets(
    model: Model, calibration: Any, evaluation: Any, preprocess: Any, options: Options
) -> tuple[Dataset | None, Dataset]:  # fmt: skip
    """Calibration data, if any, and evaluation data; the former serves as the latter where there is none."""
    if isinstance(preprocess, str | Path):
        preprocess = load_preprocess(preprocess)
    first = _opened(calibration, model, preprocess)
    second = _opened(evaluation, model, preprocess) or first
    if second is None and options.activations == "dynamic":
        second = from_batches(made_up(model.fed, position=model.position), model.fed)
    if second is None:
        raise InputError("there is no data: give calibration data, and evaluation data to measure accuracy")
    return first, second if options.samples is None else second.take(options.samples)


def _opened(data: Any, model: Model, preprocess: Preprocess | None) -> Dataset | None:
    if data is None:
        return None
    opened = open_dataset if isinstance(data, str | Path) else from_batches
    return opened(data, model.fed, preprocess)
