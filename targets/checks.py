"""Checks across the fields of a descriptor: does what it says in one place fit the others?

Each check takes the values read so far, where None stands for a value that is wrong by itself, and notes
problems; none stops at the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hwptq.formats import INT8, INT12, INT16, Pair, format_of
from hwptq.quant.fixed_point import STEPS

from .fields.problems import Problems, join, show, suggest
from .generators import GENERATORS
from .memory import Memory
from .memory_checks import check_bare
from .op_kinds import GROUP_OP, STREAM_OPS, WEIGHTED_OPS
from .requantize import Requantize
from .schema import Assembly, Elementwise, OpRule, Toolchain, priced
from .templates.limits import check_operands

#: What the instructions of [assembly] must name.
#: What operators without weights may list beside bytes, where they read a residual stream.
_WIDE = (INT16.name, INT8.name)
#: What operators without weights may read beside bytes.
_MORE = {"lookup": [(INT12.name, INT8.name)], **{op: [_WIDE] for op in STREAM_OPS}}
_OPERANDS = {
    "register": ("number",),
    "operand": ("number",),
    "load": ("registers", "pointer"),
    "load_and_step": ("registers", "pointer", "step"),
    "next": ("counter", "label"),
}


def check_fields(values: dict[str, Any], kernel_names: Iterable[str], problems: Problems) -> None:
    """Every check that needs no compiler. `kernel_names`: all that the file has, also the broken ones."""
    kernels = values.get("kernels") or {}
    ops, tvm = values["ops"] or (), values["tvm"]
    rules = [rule for rule in ops if rule is not None]
    names = list(kernel_names)
    if tvm is not None and not tvm.get("kind") and not problems.below("tvm"):
        problems.add("tvm.kind", "missing: the kind of TVM target, such as llvm")
    assembly: Assembly | None = values.get("assembly")
    registers = assembly.registers if assembly else None
    for name, kernel in kernels.items():
        if kernel is not None:
            kernel.check(join("kernel", name), registers, problems)
    for rule in rules:
        for key in ("kernel", "otherwise"):
            _check_rule(rule, key, names, kernels, problems)
        if rule.float_output and rule.op != "dense":
            problems.add(f"op[{rule.op}].float_output", "only dense has it (leave it out)")
        _check_pairs(rule, str((tvm or {}).get("kind", "")), problems)
    if len(rules) == len(ops) and not problems.below("op"):
        _check_all_used(rules, names, problems)
    if values["toolchain"] is not None:
        _check_commands(values["toolchain"], problems)
        if not problems.below("memory"):
            check_bare(values["toolchain"], values.get("memory") or Memory(), problems)
    if values.get("requantize") is not None:
        _check_requantize(values["requantize"], problems)
    numerics, kind = values.get("numerics"), (values.get("tvm") or {}).get("kind")
    if numerics is not None and numerics.rounding != STEPS and kind != "llvm":
        problems.add("numerics.rounding", f"kernels for {kind} round by steps only")
    _check_assembly(assembly, problems)
    _check_elementwise(values.get("elementwise"), values.get("memory"), problems)
    if not problems.below("cost"):
        _check_cost(rules, values.get("cost") or {}, problems)


def _check_rule(
    rule: OpRule, key: str, names: list[str], kernels: dict[str, Any], problems: Problems
) -> None:  # fmt: skip
    path, named = f"op[{rule.op}].{key}", getattr(rule, key)
    if not named:
        return
    if named not in names:
        problems.add(path, f"there is no [kernel.{show(named)[1:-1]}] ({suggest(named, names)})")
        return
    kernel = kernels.get(named)
    if kernel is not None and rule.op not in kernel.serves:
        fitting = [name for name, other in kernels.items() if other is not None and rule.op in other.serves]
        served = f"template {kernel.template} of [kernel.{named}] serves {' and '.join(kernel.serves)}"
        advice = f"use {' or '.join(fitting)}" if fitting else 'leave it out, or "" = the portable code'
        problems.add(path, f"{served}, not {rule.op} ({advice})")


def _check_pairs(rule: OpRule, kind: str, problems: Problems) -> None:
    generator = GENERATORS.get(kind)
    known = generator.pairs() if generator else None
    beside = generator.beside if generator else ()
    plain = generator.plain if generator else ((INT8.name, INT8.name),)
    for i, pair in enumerate(rule.pairs):
        path = f"op[{rule.op}].pairs[{i}]"
        if pair in rule.pairs[:i]:
            problems.add(path, f"{list(pair)} is there twice")
        elif rule.op == GROUP_OP:
            _check_group_pair(pair, path, problems)
        elif rule.op not in WEIGHTED_OPS and pair not in (possible := [*plain, *_MORE.get(rule.op, [])]):
            takes = " and ".join(str(list(p)) for p in possible)
            problems.add(path, f"{rule.op} has no weights: only {takes} can be given")
        elif known is not None and pair not in [*known, *beside]:
            takes = " and ".join(str(list(p)) for p in known)
            problems.add(path, f"{list(pair)} has no code generator for kind {show(kind)}: it takes {takes}")


def _check_group_pair(pair: Pair, path: str, problems: Problems) -> None:
    activation, weight = (format_of(name) for name in pair)
    bytes_in = activation.bits == INT8.bits and not activation.is_float
    if not bytes_in or weight.is_float or weight.bits > INT8.bits:
        problems.add(path, f"{list(pair)}: weights by group are integers of at most 8 bits, beside int8")


def _check_commands(toolchain: Toolchain, problems: Problems) -> None:
    for key in ("compiler", "run", "objdump"):
        command = getattr(toolchain, key)
        if command and not command[0].strip():
            problems.add(f"toolchain.{key}[0]", "must be the name of a program, not ''")


def _check_all_used(rules: list[OpRule], names: list[str], problems: Problems) -> None:
    for name in names:
        if all(name not in (rule.kernel, rule.otherwise) for rule in rules):
            problems.add(join("kernel", name), "no [[op]] uses it: name it as `kernel` of one, or remove it")


def _check_requantize(requantize: Requantize, problems: Problems) -> None:
    if requantize.rounding_shift_flags and not requantize.rounding_shift:
        problems.add("requantize.rounding_shift", "missing: rounding_shift_flags go with it")
    if (requantize.multiply_low or requantize.rounding_shift) and not requantize.multiply_high:
        problems.add("requantize.multiply_high", "missing: the other intrinsics go with it")
    if requantize.wide_products and requantize.multiply_high:
        problems.add("requantize.wide_products", "give this or the intrinsics of both steps")
    missing = [key for key in ("pack_words", "pack_bytes") if not getattr(requantize, key)]
    if len(missing) == 1:
        problems.add(f"requantize.{missing[0]}", "missing: give both intrinsics or none")
    if requantize.pack_unsigned_bytes and not requantize.pack_bytes:
        problems.add("requantize.pack_bytes", "missing: pack_unsigned_bytes goes with it")
    for key in ("wide_products", "pack_bytes"):
        if getattr(requantize, key) and requantize.lanes < 4:
            problems.add(f"requantize.{key}", f"needs 4 lanes or more, not {requantize.lanes}")


def _check_assembly(assembly: Assembly | None, problems: Problems) -> None:
    if assembly is None or not assembly.registers:
        return
    for key, operands in _OPERANDS.items():
        text = " ".join(assembly.next) if key == "next" else getattr(assembly, key)
        check_operands(f"assembly.{key}", text, operands, problems)


def _check_elementwise(elementwise: Elementwise | None, memory: Memory | None, problems: Problems) -> None:
    if not elementwise or not elementwise.masked or problems.below("memory"):
        return
    if (memory or Memory()).readable_behind < elementwise.lanes:
        problems.add(
            "memory.readable_behind",
            f"must be elementwise.lanes, {elementwise.lanes}, or more: masked code loads whole vectors",
        )


def _check_cost(rules: list[OpRule], cost: dict[str, float], problems: Problems) -> None:
    wanted = {
        priced(pair): (rule.op, pair)
        for rule in reversed(rules)
        if rule.op in WEIGHTED_OPS
        for pair in rule.pairs
    }
    for key, (op, pair) in wanted.items():
        if key not in cost:
            what = f"{key} weights" if key == pair[1] else f"{key} activations"
            problems.add(f"cost.{key}", f"missing: op[{op}] may choose {what}")
