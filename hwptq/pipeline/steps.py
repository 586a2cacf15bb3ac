"""All passes of a compilation, in their order, and where each is taken.

They work in anybody's tvm.ir.transform.Sequential just as well: docs/embedding.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm

from hwptq import passes
from hwptq.calibration import calibrate
from hwptq.formats import INT8, Format, Pair, format_of, parse_precision
from hwptq.ir.dataflow import main_functions
from hwptq.options import OUTSIDE
from hwptq.passes.graph.group_plan import GroupFormats, group_formats
from hwptq.passes.graph.quantizable import layer_dtypes
from hwptq.passes.round_groups import ENOUGH
from hwptq.recipe import Recipe
from hwptq.targets import Descriptor

from .step import Calibrate, CheckPatterns, Job, Record, State, Step, reads_bytes


def _on_samples(a_pass: Any) -> Callable[[Job, State], Any]:
    """What makes a pass that fits weights by group to what samples give in float."""
    return lambda job, now: a_pass(
        now.float32, job.batches, job.target, job.data.count if job.data else None, track=job.progress.track
    )


def plain(a_pass: Any) -> Step:
    """A pass that every compilation takes and that needs nothing but the module."""
    return Step(a_pass.__name__, lambda *_: a_pass())


#: float -> float: one form for what means the same
FUSE = (
    passes.FuseNorms, passes.FuseMasks, passes.FusePooling, passes.LowerConvTranspose, passes.FoldBatchNorm,
    passes.FuseConvRelu,
)  # fmt: skip
PREPARE: tuple[Step | Calibrate | CheckPatterns, ...] = (
    *map(plain, FUSE),
    CheckPatterns(),  # before anything that takes time
    # float -> float: tensors that quantize better
    Step(
        "SmoothActivations",
        lambda job, now: passes.SmoothActivations(job.batches, target=job.target, dtypes=_dense_dtypes(job)),
        when=lambda job, now: job.options.recipe.smooth,
        stage="smooth",
    ),
    Step(
        "EqualizeCrossLayer",
        lambda *_: passes.EqualizeCrossLayer(),
        when=lambda job, now: _equalizes(job),
        stage="equalize",
    ),
    Step(
        "AbsorbHighBias",
        lambda job, now: passes.AbsorbHighBias(calibrate(now.module, job.batches, axis=1)),
        when=lambda job, now: job.options.recipe.absorb,
        stage="absorb",
    ),
    Step(
        "EqualizeDepthwise",
        lambda job, now: passes.EqualizeDepthwise(job.target, job.batches, job.options.weight_granularity),
        when=lambda job, now: job.options.recipe.depthwise and reads_bytes(job.options),
        stage="equalize depthwise",
    ),
    Calibrate(),
    Record(
        "WidenActivations",
        lambda job, now: passes.WidenActivations(
            job.target, now.stats, job.batches, job.options.weight_granularity, job.options.keep_float
        ),
        when=lambda job, now: job.options.recipe.widen and job.options.precision is None,
        stage="widen",
    ),
)
# Here the search may record on the module which dtypes each layer gets: hwptq/search.
QUANTIZE = (
    # float -> QDQ, in the recorded dtypes, else in the first that the target offers
    Step(
        "InsertQDQ",
        lambda job, now: passes.InsertQDQ(
            job.target, now.stats, job.options.weight_granularity, job.options.keep_float
        ),
    ),
    # QDQ -> QDQ: layers give again what they give in float
    Step(
        "RoundWeights",
        lambda job, now: passes.RoundWeights(
            now.float32,
            job.batches,
            job.target,
            passes.RoundingOptions(job.options.recipe.rounding),
            job.progress.track,
        ),
        when=lambda job, now: _rounds(job, now.module),
        stage="round weights",
    ),
    Step(
        "CorrectBias",
        lambda job, now: passes.CorrectBias(
            now.float32, job.batches, job.target, floats_only=_rounds(job, now.module)
        ),
        when=lambda job, now: _corrects(job, now.module),
        stage="correct bias",
    ),
)
#: float -> float, where activations are dynamic: what needs no ranges
PREPARE_DYNAMIC: tuple[Step | Calibrate | CheckPatterns, ...] = (
    *map(plain, FUSE),
    CheckPatterns(),
    Step(
        "SmoothActivations",
        lambda job, now: passes.SmoothActivations(job.batches, per_token=True),
        when=lambda job, now: _smooths_tokens(job),
        stage="smooth",
    ),
)
#: float -> QDQ, dense layers alone
QUANTIZE_DYNAMIC = (
    Step(
        "InsertDynamicQDQ",
        lambda job, now: passes.InsertDynamicQDQ(
            job.target,
            job.options.keep_float,
            now.groups or _groups(job),
            job.progress.track,
        ),
        stage="round to nearest",
    ),
    Step(
        "RoundGroups",
        lambda job, now: passes.RoundGroups(
            now.float32,
            job.batches,
            job.target,
            job.data.count if job.data else None,
            _rows_enough(job),
            track=job.progress.track,
        ),
        when=lambda job, now: _rounds_groups(job),
        stage="round weights",
    ),
    Step(
        "ReconstructBlocks",
        _on_samples(passes.ReconstructBlocks),
        when=lambda job, now: _rounds_groups(job) and job.options.recipe.blocks,
        stage="reconstruct blocks",
    ),
    Step(
        "MatchOutputs",
        _on_samples(passes.MatchOutputs),
        when=lambda job, now: _rounds_groups(job) and job.options.recipe.outputs,
        stage="match outputs",
    ),
)
NORMALIZE = (
    # QDQ of another tool -> QDQ, instead of all above: it keeps its scales
    plain(passes.FuseNorms),
    plain(passes.FuseMasks),
    plain(passes.FusePooling),
    plain(passes.FoldBatchNorm),  # NormalizeQDQ would let FoldConstant at the codes
    plain(passes.NormalizeQDQ),
    plain(passes.LowerConvTranspose),
    plain(passes.FuseConvRelu),
    plain(passes.NormalizeQDQ),  # quantize is named after what was fused; shuffles move codes
    Step("QuantizeSummands", lambda job, now: passes.QuantizeSummands(job.target)),
    Step("KeepUnlisted", lambda job, now: passes.KeepUnlisted(job.target)),
)
FIT = (
    # QDQ -> QDQ: codes that layers take, rounded anew where there are none
    plain(passes.FitIntegers),
)
LOWER = (
    # QDQ -> integers, in portable code: the reference of all targets
    Step("LowerToInteger", lambda job, now: passes.LowerToInteger(job.target)),
    Step(
        "CachesInBytes",
        lambda job, now: passes.CachesInBytes(job.target),
        when=lambda job, now: _holds_codes(job.options.kv_cache),
    ),
    Step(
        "FuseAttention",
        lambda job, now: passes.FuseAttention(job.target),
        when=lambda job, now: job.options.activations == "dynamic",
    ),
    Step(
        "ExactFunctions",
        lambda job, now: passes.ExactFunctions(job.target),
        when=lambda job, now: job.options.activations == "dynamic",
    ),
)
SELECT = (
    # integers -> the target's kernels, which compute the same
    Step("JoinKernels", lambda job, now: passes.JoinKernels(job.target)),
    Step(
        "JoinRealKernels",
        lambda job, now: passes.JoinRealKernels(job.target),
        when=lambda job, now: job.options.activations == "dynamic",
    ),
    Step(
        "SelectKernels",
        lambda job, now: passes.SelectKernels(job.target, job.options.threads, now.tile_of),
    ),
)
#: integers of a step -> kernels of what reads several tokens, by the same weights
PROMPT = (
    Step("ReadPrompt", lambda job, now: passes.ReadPrompt(job.options.prompt or 1)),
    Step(
        "SelectKernelsOfPrompt",
        lambda job, now: passes.SelectKernels(job.target, job.options.threads, now.tile_of, beside_one=True),
    ),
)


def _holds_codes(kv_cache: str) -> bool:
    """Whether caches in the program are to be integers."""
    return kv_cache != OUTSIDE and not format_of(kv_cache).is_float


def _dense_dtypes(job: Job) -> Pair:
    """Those that most dense layers will have: as asked, else the first that the target offers."""
    if job.options.precision:
        return parse_precision(job.options.precision)
    rule = job.target.rule("dense")
    return rule.pairs[0] if rule else (INT8.name, INT8.name)


def _groups(job: Job) -> GroupFormats | None:
    """The formats of weights that have a scale for each group, if they are wished."""
    options = job.options
    if options.weight_granularity != "group":
        return None
    return group_formats(job.target, options.precision, options.group, options.lower_ends)


def _smooths_tokens(job: Job) -> bool:
    """Not where weights have few bits: what leaves the activations would be lost in them."""
    return job.options.recipe.smooth and job.data is not None and _groups(job) is None


def _rounds_groups(job: Job) -> bool:
    """Weights by group are rounded to nearest where there is no data."""
    return _groups(job) is not None and job.data is not None and job.options.recipe.rounding != "nearest"


def _rows_enough(job: Job) -> int:
    """Tokens that weights by group are rounded by: a quarter in a hurry."""
    return ENOUGH if job.options.recipe.rounding == "clamped" else ENOUGH // 4


def _equalizes(job: Job) -> bool:
    """ "auto" equalizes where the weights of convolutions have one scale for all channels."""
    wish, granularity = job.options.recipe.equalize, job.options.weight_granularity
    rules = [job.target.rule(kind) for kind in ("conv2d", "depthwise_conv2d")]
    offered = [rule.granularity for rule in rules if rule is not None]
    per_tensor = "tensor" in (offered if granularity is None else [granularity])
    return wish == "on" or (wish == "auto" and per_tensor)


def _rounds(job: Job, qdq: tvm.IRModule) -> bool:
    return rounds(job.options.recipe, qdq, job.target)


def rounds(recipe: Recipe, qdq: tvm.IRModule, target: Descriptor) -> bool:
    """Whether a recipe rounds weights of a QDQ module: those of layers in integers, if scales may change."""
    if target.numerics.grid.settles_scales:
        return False
    return recipe.rounding != "nearest" and any(not f.is_float for f in _formats(qdq))


def _corrects(job: Job, qdq: tvm.IRModule) -> bool:
    """Rounding settles the biases too, but there is none for layers in floats."""
    recipe = job.options.recipe
    if _rounds(job, qdq):
        return any(f.is_float for f in _formats(qdq))
    return recipe.correct_bias or recipe.rounding != "nearest"


def _formats(qdq: tvm.IRModule) -> set[Format]:
    """Those of the weights of a QDQ module."""
    pairs = [pair for _, f in main_functions(qdq) for pair in layer_dtypes(f).values()]
    return {format_of(weight) for _, weight in pairs}
