"""plan, diagnose, repair: what a compilation would choose and lose, and what mends it; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwptq.data.dataset import Dataset
from hwptq.data.preprocess import Preprocess
from hwptq.diagnosis import diagnosis
from hwptq.diagnosis.diagnosis import Diagnosis
from hwptq.diagnosis.repair import Repair
from hwptq.diagnosis.repair import repair as find_repair
from hwptq.frontends.frontend import read_model
from hwptq.frontends.model import Model
from hwptq.search.choose import Chooser
from hwptq.search.group_widths import group_widths
from hwptq.search.wishes import check_wishes, searches

from . import passes
from .errors import InputError
from .flow import cache_of, of_passes
from .open_workers import open_workers
from .opened_data import datasets
from .options import Options, OptionWords, options_of
from .pipeline.stages import prepare, prepare_dynamic
from .pipeline.step import Job
from .progress import Progress
from .targets import load_target
from .turn import turn

if TYPE_CHECKING:
    from typing_extensions import Unpack


@turn()
def plan(
    model: Any,
    target: str | Path,
    calibration_data: Any,
    preprocess: str | Path | Preprocess | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    **words: Unpack[OptionWords],
) -> dict[str, Any]:
    """The dtypes that `compile` would choose for each layer, and their predicted cost; nothing is written.

    The `assignment` object of the report. Raises a HwptqError as compile does.
    """
    options, progress = options_of(options, **words), progress or Progress()
    device = load_target(target, trust=options.trust_descriptor)
    with progress.stage("import"):
        imported = read_model(model, options.axes, options.fixed)
        calibration, _ = datasets(imported, calibration_data, None, preprocess, options)
    check_wishes(options, device, passes.is_quantized(imported.module))
    if options.dtype_budget is None:
        _needs_static(options, "--dry-run")
    if searches(options):
        raise InputError("--dry-run emits no code to check --max-drop on: give a --budget or a --precision")
    with of_passes(model, imported), open_workers(options.cluster, [device], [calibration_data]) as workers:
        job = Job(device, calibration, options, progress, cache=cache_of(imported, options), workers=workers)
        if options.activations == "dynamic":
            chosen = group_widths(prepare_dynamic(imported.module, job), job)
            assert chosen is not None
            return chosen.report()
        return Chooser(prepare(imported.module, job), job).choose(options.dtype_budget).report()


@turn()
def diagnose(
    model: Any,
    target: str | Path,
    calibration_data: Any,
    evaluation_data: Any = None,
    preprocess: str | Path | Preprocess | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    **words: Unpack[OptionWords],
) -> Diagnosis:
    """What `compile` with these arguments would lose, where, by what, and what mends it; nothing is written.

    It looks at the first samples of the evaluation data, as many as a few minutes allow. Raises a HwptqError
    as compile does.
    """
    options = options_of(options, **words)
    _needs_static(options, "diagnose")
    case = model, target, calibration_data, evaluation_data, preprocess, options, progress or Progress()
    with _imported(*case) as (imported, job, evaluation):
        return diagnosis.diagnose(imported.module, job, evaluation, imported.outputs)


@turn()
def repair(
    model: Any,
    target: str | Path,
    calibration_data: Any,
    evaluation_data: Any = None,
    preprocess: str | Path | Preprocess | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    **words: Unpack[OptionWords],
) -> Repair:
    """The cheapest change of the options, of those that `diagnose` tries, with which no more than `max_drop`
    is lost; `Repair.applied` gives the options for `compile`.

    Raises a HwptqError: AccuracyError where nothing suffices.
    """
    options = options_of(options, **words)
    if options.max_drop is None:
        raise InputError("a repair needs --max-drop: the points that may be lost")
    _needs_static(options, "a repair")
    case = model, target, calibration_data, evaluation_data, preprocess, options, progress or Progress()
    with _imported(*case) as (imported, job, evaluation):
        return find_repair(imported.module, job, evaluation, options.max_drop)


def _needs_static(options: Options, what: str) -> None:
    if options.activations == "dynamic":
        raise InputError(f"{what} is about scales of calibration: leave --activations dynamic out")


@contextmanager
def _imported(
    model: Any, target: str | Path, calibration_data: Any, evaluation_data: Any, preprocess: Any,
    options: Options, progress: Progress,
) -> Iterator[tuple[Model, Job, Dataset]]:  # fmt: skip
    """A model, its job and its evaluation data, to be looked at; errors of passes become the user's."""
    device = load_target(target, trust=options.trust_descriptor)
    with progress.stage("import"):
        imported = read_model(model, options.axes, options.fixed)
        calibration, evaluation = datasets(imported, calibration_data, evaluation_data, preprocess, options)
    seen = calibration_data, evaluation_data
    with of_passes(model, imported), open_workers(options.cluster, [device], seen) as workers:
        job = Job(device, calibration, options, progress, cache=cache_of(imported, options), workers=workers)
        yield imported, job, evaluation
