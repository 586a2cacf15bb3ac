"""compile: a model, data and a target -> a folder of machine code and its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tvm

from hwptq.data.dataset import Dataset, Sample
from hwptq.data.preprocess import Preprocess
from hwptq.data.with_caches import WithCaches
from hwptq.diagnosis.isolated import isolated
from hwptq.evaluate.steps import Steps
from hwptq.frontends.frontend import read_model
from hwptq.frontends.model import IMPORT_CHECK, ImportCheck, Model
from hwptq.report.accuracy import check_most, drop, load_metric
from hwptq.report.asked import asked
from hwptq.report.collapse import collapse_warnings
from hwptq.report.coverage import coverage
from hwptq.report.evidence import Evidence
from hwptq.report.profile import Profile, profile
from hwptq.report.result_warnings import library_warnings, prompt_warnings, result_warnings
from hwptq.report.verify import verify
from hwptq.search.bands import Banded, fitting_kernels
from hwptq.search.choose import BitWidths
from hwptq.search.drop_search import bit_widths
from hwptq.search.group_widths import GroupWidths, group_widths
from hwptq.search.wishes import check_wishes
from hwptq.tuning.tile_cache import TileCache
from hwptq.tuning.tune import Tuning, tune

from . import passes
from .artifact import CompiledModel, load
from .backends.arena_budget import check_arena
from .backends.backend import backend_of
from .bitwidths.budget import ARENA
from .cache.cache import Cache
from .errors import AccuracyError, HwptqError, InputError, MismatchError, UnsupportedError
from .notices import Warning, refuse
from .open_workers import open_workers
from .opened_data import OpenedData
from .options import OUTSIDE, Options, OptionWords, options_of
from .outcome import Built, Outcome, write
from .output_folder import staged
from .pipeline.ir_dump import IrDump
from .pipeline.stages import (
    Graphs,
    Quantized,
    insert,
    insert_dynamic,
    integers,
    normalize,
    prepare,
    prepare_dynamic,
    prompt_kernels,
)
from .pipeline.step import Job, first_tile
from .progress import Progress
from .targets import Descriptor, load_target
from .turn import turn
from .user_cache import open_cache

if TYPE_CHECKING:
    from typing_extensions import Unpack


@turn()
def compile(
    model: Any,
    target: str | Path,
    calibration_data: Any = None,
    evaluation_data: Any = None,
    preprocess: str | Path | Preprocess | None = None,
    output: str | Path = "out",
    options: Options | None = None,
    progress: Progress | None = None,
    **words: Unpack[OptionWords],
) -> CompiledModel:
    """Compile a model into `output` and verify the code by running it.

    model: the path of an ONNX file, an onnx.ModelProto, a Relax IRModule (or with it its parameters), a
    torch.export.ExportedProgram; whatever a frontend takes (frontends/frontend.py).
    Data: a path, "module:function", or an iterable of dicts (see data.py). Without evaluation data the code
    is verified on the calibration data. A model in QDQ form needs no calibration data. Options may be given
    as keywords, as in `precision="w4a8", budget="weights=0.8x", recipe="best"`.

    Raises a HwptqError: InputError, UnsupportedError (nothing quantized), BudgetError, MismatchError,
    AccuracyError or StrictError; after the last three the folder is complete and its report says why.
    """
    options, progress = options_of(options, **words), progress or Progress()
    device = load_target(target, trust=options.trust_descriptor)
    backend_of(device).check(options.threads, here=options.executor is None)
    if options.profile and (problem := backend_of(device).why_not_profile(options.threads)):
        raise InputError(f"{device.name}: --profile measures kernels by running them, and {problem}")
    if options.prompt and (problem := backend_of(device).why_no_prompt(options.threads)):
        raise InputError(f"{device.name}: --prompt reads several tokens at once, and {problem}")
    if options.tune_cache is not None and not options.tune:
        raise InputError("--tune-cache says where --tune keeps its measurements: give --tune too")
    score = load_metric(options.metric)
    given = {"calibration": calibration_data, "evaluation": evaluation_data, "preprocess": preprocess}
    if options.validation_data is not None:
        given["validation"] = options.validation_data
    paths = calibration_data, evaluation_data, options.validation_data, Path(output).absolute().parent
    with staged(Path(output)) as folder, open_workers(options.cluster, [device], paths) as workers:
        with progress.stage("import"):
            imported = _with_caches(read_model(model, options.axes, options.fixed), device, options)
            data = OpenedData.opened(imported, given, options)
            if (first := data.evaluation.peek()) is not None:
                score.check(first.label, imported.first_shape)
        calibration = _whole(data.calibration, imported)
        dump, cache = IrDump(options.dump_ir), cache_of(imported, options)
        job = Job(device, calibration, options, progress, dump, cache, workers)
        with progress.stage("check the import"):
            checked = _import_check(imported, first, job.cache)
        with of_passes(model, imported):
            built = _built(imported, job, data.validation, folder)
        with progress.stage("verify"):
            evidence = verify(
                built.graphs, built.program, device, data.evaluation, score, progress, options.executor,
                workers,
            )  # fmt: skip
        suspect = _suspicions(evidence, built, data)
        warnings = [*imported.warnings, *checked.warnings, *data.warnings, *built.warnings, *suspect]
        whole = _whole(data.evaluation, imported) or data.evaluation
        alone = _alone(imported, built.graphs, whole, options, progress)
        wish = asked(model, target, given, options)
        costs = _profile(built, job, first) if options.profile else None
        found = Outcome(
            imported, device, built, evidence, checked, warnings, alone, wish, data.preprocess, costs
        )
        with progress.stage("report"):
            write(folder, found, progress.seconds)
    result = load(output, options.executor, options.trust_descriptor)
    _gate(result.report, found, options)
    return result


def _with_caches(model: Model, target: Descriptor, options: Options) -> Model:
    """The model with its caches noted, where the program keeps them."""
    if options.kv_cache == OUTSIDE or not backend_of(target).keeps_caches:
        return model
    noted = tvm.ir.transform.Sequential([passes.CarryCaches()])
    return replace(model, module=noted(model.module))


def cache_of(model: Model, options: Options) -> Cache:
    """Where results are kept; nothing of a model whose weights stay in their files is."""
    return open_cache(options.cache and not model.mapped)


def _whole(data: Dataset | None, model: Model) -> Dataset | None:
    """The same data with what caches hold at each step."""
    return WithCaches(data, model.module) if data is not None and model.caches else data


def _built(model: Model, job: Job, validation: Dataset, folder: Path) -> Built:
    """Quantize, lower and build a model into `folder`. Raises ValueError as passes do, BudgetError."""
    quantized, widths = _quantized(model, job, validation)
    graphs, tuning, bands = _lowered(quantized, job, model.given)
    with job.progress.stage("build"):
        program = backend_of(job.target, job.cache).build(
            graphs.kernels, model.given, model.name, folder, graphs.prompt
        )
    if widths:
        widths.check(program.weight_bytes)
    if (budget := job.options.budget) and budget.kind == ARENA:
        check_arena(program, graphs.kernels, budget)
    return Built(graphs, program, widths, tuning, quantized.warnings, bands)


def _import_check(model: Model, sample: Sample | None, cache: Cache) -> ImportCheck:
    """Raises UnsupportedError where the module differs from the model that it was read from."""
    inputs = Steps(model.module).whole(sample.inputs) if sample else None
    return cache.recall("import-check", (model.source, inputs), IMPORT_CHECK, lambda: model.check(inputs))


def _suspicions(evidence: Evidence, built: Built, data: OpenedData) -> list[Warning]:
    """What looks wrong in what the code has given."""
    outputs = [tensor.name for tensor in built.program.outputs]
    covered = coverage(built.graphs.float32, built.graphs.integer)
    return [
        *collapse_warnings(evidence.kept, evidence.kept_outputs),
        *result_warnings(evidence.score, outputs, covered, not data.own),
        *prompt_warnings(evidence.steps_alone),
        *library_warnings(built.program),
    ]


def _profile(built: Built, job: Job, sample: Sample | None) -> Profile:
    with job.progress.stage("profile"):
        return profile(built.graphs.kernels, built.program, job.target, sample)


def _alone(
    model: Model, graphs: Graphs, evaluation: Dataset, options: Options, progress: Progress
) -> dict[str, dict[str, Any]]:
    """The noise of each layer that is quantized alone, where that is wished for and can be."""
    if not options.isolate or passes.is_quantized(model.module):
        return {}
    return isolated(graphs.float32, graphs.qdq, evaluation, progress)


@contextmanager
def of_passes(model: Any, imported: Model) -> Iterator[None]:
    """What passes raise, a ValueError that names the node, is a UnsupportedError of that model."""
    try:
        yield
    except ValueError as error:
        raise UnsupportedError(f"{_shown(model, imported)}: {error}") from error


def _quantized(
    model: Model, job: Job, validation: Dataset
) -> tuple[Quantized, BitWidths | GroupWidths | None]:
    """The quantized model, and how its dtypes were chosen (None where nobody had a wish)."""
    already = passes.is_quantized(model.module)
    check_wishes(job.options, job.target, already)
    job.dump("import", model.module)
    if already:
        return normalize(model.module, job), None
    if job.options.activations == "dynamic":
        float32 = prepare_dynamic(model.module, job)
        chosen = group_widths(float32, job)
        return insert_dynamic(float32, job, chosen.groups if chosen else None), chosen
    prepared = prepare(model.module, job)
    widths = bit_widths(prepared, job, model.given, validation)
    return insert(widths.recorded(prepared) if widths else prepared, job), widths


def _shown(model: Any, imported: Model) -> str:
    """What an error calls the model."""
    return str(model) if isinstance(model, str | Path) else imported.name


def _lowered(
    quantized: Quantized, job: Job, outputs: tuple[str, ...]
) -> tuple[Graphs, Tuning | None, tuple[Banded, ...]]:
    """Integers, then kernels, of the tiles that --tune chooses where it is wished, and in bands where
    activations would not fit.

    Raises UnsupportedError where nothing of the model could be quantized.
    """
    with job.progress.stage("lower"):
        integer = integers(quantized, job)
    found = coverage(quantized.float32, integer)
    if not found["nodes_quantized"]:
        reasons = "; ".join(f"{n['name']}: {n['reason']}" for n in found["nodes_float"][:3])
        raise UnsupportedError(f"nothing of the model can be quantized for {job.target.name} ({reasons})")
    tuning = None
    if job.options.tune:
        with job.progress.stage("tune"):
            tuning = tune(integer, job.target, TileCache(job.options.tune_cache), job.progress)
    with job.progress.stage("select"):
        tile_of = tuning.tile_of if tuning else first_tile
        fitted = fitting_kernels(integer, job, outputs, tile_of)
        prompt = prompt_kernels(integer, job, tile_of)
    return (
        Graphs(
            quantized.float32,
            quantized.qdq,
            integer,
            fitted.code,
            quantized.observer,
            quantized.rounding,
            prompt,
        ),
        tuning,
        fitted.bands,
    )


def _gate(report: dict[str, Any], found: Outcome, options: Options) -> None:
    """Raise where the emitted code is no program, wrong, not as accurate as asked for, or under suspicion."""
    program, evidence, warnings = found.built.program, found.evidence, found.warnings
    if program.link_failed and program.object:
        raise HwptqError(f"{program.why_none}; {program.object.name} and its header are in the output folder")
    if evidence.mismatches:
        raise MismatchError(
            f"the emitted code differs from the reference in {evidence.mismatches} of {evidence.values} "
            f"values, first at {evidence.first_mismatch}; this is a bug of a kernel, please report it"
        )
    if options.strict:
        refuse(warnings)
    if options.max_drop is None:
        return
    accuracy = report["accuracy"]
    lost = drop(accuracy)
    if lost is None:
        raise InputError(
            f"--max-drop needs labels or a --metric, and code that runs here ({evidence.executor})"
        )
    check_most(options.max_drop, accuracy["metric"], accuracy["float32"])
    if lost > options.max_drop:
        raise AccuracyError(
            f"the emitted code loses {lost:.2f} points, --max-drop allows {options.max_drop:g}"
        )
