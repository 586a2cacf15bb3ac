"""The stages of a compilation: what comes out between its groups of passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import tvm

from hwptq import passes
from hwptq.calibration import CalibrationStats
from hwptq.kernels.layer import Layer
from hwptq.notices import Warning
from hwptq.passes.graph.group_plan import GroupChoice

from .rounding_choice import rounding_by_pairs
from .scale_warnings import scale_warnings
from .step import Job, State, first_tile, run
from .steps import (
    FIT,
    FUSE,
    LOWER,
    NORMALIZE,
    PREPARE,
    PREPARE_DYNAMIC,
    PROMPT,
    QUANTIZE,
    QUANTIZE_DYNAMIC,
    SELECT,
)
from .weight_warnings import weight_warnings


@dataclass(frozen=True)
class Prepared:
    """The float module that is quantized, and what its tensors hold."""

    float32: tvm.IRModule
    stats: CalibrationStats


@dataclass(frozen=True)
class Quantized:
    """A model before and after quantization; both give named tensors that can be compared."""

    float32: tvm.IRModule
    qdq: tvm.IRModule
    warnings: tuple[Warning, ...] = ()
    observer: str | None = None  # by which the ranges of activations were taken, if they were
    rounding: str | None = None  # by which the weights were rounded, if they were


@dataclass(frozen=True)
class Graphs:
    """One model at the stages that verification compares."""

    float32: tvm.IRModule  # fused, before quantization
    qdq: tvm.IRModule  # its scales
    integer: tvm.IRModule  # the reference
    kernels: tvm.IRModule  # what the emitted code was made of
    observer: str | None = None  # as in Quantized
    rounding: str | None = None
    prompt: tvm.IRModule | None = None  # kernels of what reads several tokens at once, beside those of a step


def fuse(module: tvm.IRModule) -> tvm.IRModule:
    """The first float passes, which need no job: the outputs stay the same."""
    return tvm.ir.transform.Sequential([make() for make in FUSE])(module)


def prepare(module: tvm.IRModule, job: Job) -> Prepared:
    """An imported float module, ready to be quantized. Raises InputError for bad or no data, and for options
    that name nodes which are not there.
    """
    now = run(PREPARE, job, State(module))
    assert now.float32 is not None
    assert now.stats is not None
    return Prepared(now.float32, now.stats)


def insert(prepared: Prepared, job: Job) -> Quantized:
    """A prepared module quantized, with the dtypes recorded on it, else the first of the target's."""
    state = State(prepared.float32, prepared.float32, prepared.stats)
    if job.options.partner:
        with job.progress.stage("rounding by pairs"):
            method = rounding_by_pairs(state, job, lambda other: integers(insert(prepared, other), other))
        recipe = replace(job.options.recipe, rounding=method)
        job = replace(job, options=replace(job.options, recipe=recipe))
    now = run(QUANTIZE, job, state)
    warnings = tuple(scale_warnings(prepared.stats, now.module))
    how = prepared.stats.method, job.options.recipe.rounding
    return Quantized(prepared.float32, now.module, warnings, *how)


def prepare_dynamic(module: tvm.IRModule, job: Job) -> tvm.IRModule:
    """An imported float module, ready for `insert_dynamic`. Raises InputError for options that name nodes
    which are not there."""
    return run(PREPARE_DYNAMIC, job, State(module)).module


def insert_dynamic(float32: tvm.IRModule, job: Job, groups: GroupChoice | None = None) -> Quantized:
    """A prepared module whose dense layers take int8 with a scale for each row; all else stays.

    groups: which weights have which formats and groups; None: as the options say."""
    return Quantized(float32, run(QUANTIZE_DYNAMIC, job, State(float32, float32, groups=groups)).module)


def dynamic(module: tvm.IRModule, job: Job) -> Quantized:
    """An imported float module with dynamic activations, as the options say without a budget."""
    return insert_dynamic(prepare_dynamic(module, job), job)


def normalize(module: tvm.IRModule, job: Job) -> Quantized:
    """A module that another tool has quantized; what it computes in float, with its Q and DQ, stands for
    float32."""
    module = run(NORMALIZE, job, State(module)).module
    fitted = run(FIT, job, State(module)).module
    return Quantized(module, fitted, tuple(weight_warnings(fitted)))


def quantize(module: tvm.IRModule, job: Job) -> Quantized:
    """An imported module quantized, each layer to the first dtypes that the target offers.

    Raises InputError for bad or no calibration data.
    """
    if passes.is_quantized(module):
        return normalize(module, job)
    return insert(prepare(module, job), job)


def integers(quantized: Quantized, job: Job) -> tvm.IRModule:
    """The integer module: portable, the reference of all targets."""
    return run(LOWER, job, State(quantized.qdq)).module


def kernels(integer: tvm.IRModule, job: Job, tile_of: Callable[[Layer], int] = first_tile) -> tvm.IRModule:
    """The same by the target's kernels. tile_of: see SelectKernels."""
    return run(SELECT, job, State(integer, tile_of=tile_of)).module


def prompt_kernels(
    integer: tvm.IRModule, job: Job, tile_of: Callable[[Layer], int] = first_tile
) -> tvm.IRModule | None:
    """Kernels that read as many tokens at once as the options say, None where these say nothing; integer,
    tile_of: of the step beside them."""
    return run(PROMPT, job, State(integer, tile_of=tile_of)).module if job.options.prompt else None


def lower(quantized: Quantized, job: Job) -> Graphs:
    """Integers, then kernels."""
    integer = integers(quantized, job)
    return Graphs(
        quantized.float32,
        quantized.qdq,
        integer,
        kernels(integer, job),
        quantized.observer,
        quantized.rounding,
    )
