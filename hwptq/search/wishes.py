"""What the options wish of dtypes, and which wishes say nothing or contradict each other."""

from __future__ import annotations

from hwptq.bitwidths.budget import BITS
from hwptq.errors import InputError
from hwptq.formats import INT8, Pair, parse_precision, precision_word
from hwptq.options import Options
from hwptq.passes.graph.group_plan import group_formats
from hwptq.targets import Descriptor
from hwptq.targets.op_kinds import GROUP_OP, WEIGHTED_OPS

_DYNAMIC = INT8.name, INT8.name  # what dense layers take where activations are dynamic


def wished(options: Options) -> bool:
    """Whether any option is about dtypes; if none is, each layer gets the first that the target offers."""
    return bool(options.precision or options.dtype_budget or options.exclude or searches(options))


def searches(options: Options) -> bool:
    """Whether --max-drop alone decides: then the cheapest assignment that holds it is wanted."""
    return options.max_drop is not None and options.dtype_budget is None and options.precision is None


def check_wishes(options: Options, target: Descriptor, quantized: bool) -> None:
    """Raise InputError for options about dtypes that say nothing, or contradict each other or the model."""
    grouped = options.weight_granularity == "group"
    if options.validation_data is not None and not searches(options):
        raise InputError(
            "--validation-data is what a search for --max-drop measures on: give --max-drop alone"
        )
    if options.group is not None and not (grouped and options.activations == "dynamic"):
        raise InputError(
            "--group is about --weight-granularity group with --activations dynamic; else the kernel says it"
        )
    if options.activations == "dynamic":
        _check_dynamic(options, target, quantized)
        return
    if options.precision is not None:
        _check_precision(options.precision, target)
    if options.precision and options.dtype_budget:
        raise InputError("--precision leaves a budget nothing to choose: give one of the two")
    if grouped and not any(target.weight_group(rule.op) for rule in target.ops):
        raise InputError(f"--weight-granularity group: no kernel of {target.name} unpacks weights per group")
    if options.lower_ends and not (options.precision or searches(options)):
        raise InputError("--lower-ends is about --precision or --max-drop alone: give one of them")
    if quantized and (options.precision or options.dtype_budget):
        raise InputError("the model is quantized already: --precision and --budget need a model in float")
    if quantized and (options.exclude or options.keep_float):
        raise InputError("the model is quantized already: --exclude and --keep-float need a model in float")
    dtype = options.dtype_budget.dtype if options.dtype_budget else None
    if dtype and all(dtype != weight for _, weight in static_pairs(target)):
        raise InputError(f"--budget {options.dtype_budget}: target {target.name} offers no {dtype} weights")


def _check_dynamic(options: Options, target: Descriptor, quantized: bool) -> None:
    """Raise InputError where dynamic activations leave an option nothing to say, or the target has none."""
    if quantized:
        raise InputError("the model is quantized already: --activations dynamic needs a model in float")
    if options.partner:
        raise InputError("--partner is about static activations: leave --activations dynamic out")
    _check_dynamic_budget(options)
    if options.weight_granularity == "group":
        try:
            group_formats(target, options.precision, options.group)
        except ValueError as error:
            raise InputError(f"--weight-granularity group: {error}") from error
    elif options.precision not in (None, "w8a8") or options.lower_ends:
        raise InputError(
            "--activations dynamic is int8 by int8; --weight-granularity group has weights of fewer bits"
        )
    elif options.weight_granularity == "tensor":
        raise InputError("--activations dynamic has a scale for each channel or group of a weight")
    rule = target.rule("dense")
    if rule is None or not rule.float_output or _DYNAMIC not in rule.pairs:
        raise InputError(f"--activations dynamic: {target.name} offers no dense layers from int8 to float32")


def _check_dynamic_budget(options: Options) -> None:
    """Raise InputError where dynamic activations leave a budget, or what is kept from it, no choice."""
    budget = options.dtype_budget
    if budget is None and options.exclude:
        raise InputError("--activations dynamic has no choice of dtypes by layer without --budget bits=…")
    if budget is None:
        return
    if budget.kind != BITS or options.weight_granularity != "group":
        raise InputError(
            "--activations dynamic has a choice of dtypes by layer for --budget bits=… with "
            "--weight-granularity group alone"
        )
    if options.precision:
        raise InputError("--precision leaves a budget nothing to choose: give one of the two")
    if options.lower_ends:
        raise InputError("--lower-ends is about --precision: a budget is for all layers")


def static_pairs(target: Descriptor) -> list[Pair]:
    """The dtypes that a target offers to layers whose ranges are calibrated."""
    return [pair for rule in target.ops if rule.op in WEIGHTED_OPS for pair in rule.pairs]


def _check_precision(word: str, target: Descriptor) -> None:
    try:
        wanted = parse_precision(word)
    except ValueError as error:
        words = filter(None, dict.fromkeys(map(precision_word, static_pairs(target))))
        raise InputError(f"--precision {word}: give {', '.join(words)}") from error
    rule = target.rule(GROUP_OP)
    if wanted not in static_pairs(target) and rule is not None and wanted in rule.pairs:
        raise InputError(
            f"--precision {word}: {target.name} offers it with --weight-granularity group and --activations "
            "dynamic alone"
        )
