"""Checks across the fields of a descriptor: does what it says in one place fit the others?

Each check takes the values read so far, where None stands for a value that is wrong by itself, and notes
problems; none stops at the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hwptq.formats import BFLOAT16, E4M3, INT8, Pair, formats

from .kernel_tables import (
    DepthwiseKernel,
    DotProductKernel,
    Kernel,
    MatrixMultiplyKernel,
    MmaKernel,
    TableLookupKernel,
    TablePermuteKernel,
    WgmmaKernel,
)
from .problems import Problems, join, show, suggest
from .schema import WEIGHTED_OPS, Assembly, Elementwise, Memory, OpRule, Requantize, Toolchain, priced

MAX_VECTOR_BITS = 2048  # the widest vector of Arm SVE; Hexagon's are 1024, AVX-512's 512
MIN_VECTOR_BITS = 32

#: What a descriptor says of an operator without weights, where it is not int8; on such a device it takes the
#: dtypes of the tensors beside it.
PLAIN_PAIRS = {"cuda": (E4M3.name, E4M3.name)}
INT8_PAIR = (INT8.name, INT8.name)
#: What the instructions of [assembly] must name.
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
    for name, kernel in kernels.items():
        if kernel is not None:
            _check_kernel(kernel, join("kernel", name), problems)
    for rule in rules:
        _check_rule(rule, names, kernels, problems)
        if rule.float_output and rule.op != "dense":
            problems.add(f"op[{rule.op}].float_output", "only dense has it (leave it out)")
        _check_pairs(rule, str((tvm or {}).get("kind", "")), problems)
    if len(rules) == len(ops) and not problems.below("op"):
        _check_all_used(rules, names, problems)
    if values["toolchain"] is not None:
        _check_commands(values["toolchain"], problems)
    if values.get("requantize") is not None:
        _check_requantize(values["requantize"], problems)
    _check_assembly(values.get("assembly"), kernels, problems)
    _check_elementwise(values.get("elementwise"), values.get("memory"), problems)
    if not problems.below("cost"):
        _check_cost(rules, values.get("cost") or {}, problems)


def _check_kernel(kernel: Any, path: str, problems: Problems) -> None:
    group = getattr(kernel, "weight_group", 0)
    if group % (2 * getattr(kernel, "k", 1)):
        problems.add(
            join(path, "weight_group"), f"must be a multiple of 2 * k, {2 * kernel.k}: a byte holds two"
        )
    match kernel:
        case WgmmaKernel() | MmaKernel():
            return
        case MatrixMultiplyKernel():
            _check_matrix_multiply(kernel, path, problems)
            return
        case TableLookupKernel():
            return
        case TablePermuteKernel():
            _check_table_permute(kernel, path, problems)
            return
        case DotProductKernel():
            bits, k, formula = kernel.operand_bits, kernel.k, "lanes * k * operand_bits"
        case DepthwiseKernel():
            bits, k, formula = 8, 1, "lanes * 8"
        case _:
            bits, k, formula = 32, 1, "lanes * 32"
    _check_vector(kernel.lanes * k * bits, formula, join(path, "lanes"), problems)
    if not isinstance(kernel, DotProductKernel):
        return
    if k * bits != 32:
        problems.add(
            join(path, "k"),
            f"k * operand_bits is {k * bits}: the operands of one int32 lane take 32 bits, "
            f"so k is {32 // bits} for operands of {bits} bits",
        )
    if kernel.unsigned_activation and bits != 8:
        problems.add(
            join(path, "unsigned_activation"), "is for operands of 8 bits; int8 fits 16 bits with its sign"
        )


def _check_matrix_multiply(kernel: MatrixMultiplyKernel, path: str, problems: Problems) -> None:
    sizes = (
        ("rows", "rows * k * 8", kernel.rows * kernel.k * 8),
        ("columns", "columns * k * 8", kernel.columns * kernel.k * 8),
        ("columns", "rows * columns * 32", kernel.rows * kernel.columns * 32),
    )
    for key, formula, bits in sizes:
        _check_vector(bits, formula, join(path, key), problems)


def _check_table_permute(kernel: TablePermuteKernel, path: str, problems: Problems) -> None:
    held = kernel.entries // kernel.registers
    if held > kernel.lanes:
        problems.add(
            join(path, "entries"),
            f"{kernel.entries} in {kernel.registers} registers are {held} in each, of {kernel.lanes} bytes",
        )
    if kernel.indices > kernel.registers:
        problems.add(
            join(path, "indices"),
            f"there are {kernel.registers + 1} operands, the last one is number {kernel.registers}",
        )
    if kernel.joining and kernel.outside != "zero":
        problems.add(join(path, "joining"), "is for instructions that give 0 for indices outside")
    if kernel.outside == "zero_if_negative" and kernel.entries > 128:
        problems.add(join(path, "entries"), "an int8 that is not negative is an index below 128")


def _check_vector(bits: int, formula: str, path: str, problems: Problems) -> None:
    if bits & (bits - 1) or not MIN_VECTOR_BITS <= bits <= MAX_VECTOR_BITS:
        problems.add(
            path,
            f"{formula} is {bits} bits: a vector has a power of two of bits, "
            f"{MIN_VECTOR_BITS} to {MAX_VECTOR_BITS}",
        )


def _check_rule(rule: OpRule, names: list[str], kernels: dict[str, Any], problems: Problems) -> None:
    path = f"op[{rule.op}].kernel"
    if not rule.kernel:
        return
    if rule.kernel not in names:
        problems.add(path, f"there is no [kernel.{show(rule.kernel)[1:-1]}] ({suggest(rule.kernel, names)})")
        return
    kernel = kernels.get(rule.kernel)
    if kernel is not None and rule.op not in kernel.serves:
        fitting = [name for name, other in kernels.items() if other is not None and rule.op in other.serves]
        served = f"template {kernel.template} of [kernel.{rule.kernel}] serves {' and '.join(kernel.serves)}"
        advice = f"use {' or '.join(fitting)}" if fitting else 'leave it out, or "" = the portable code'
        problems.add(path, f"{served}, not {rule.op} ({advice})")


def generated_pairs(kind: str) -> list[Pair] | None:
    """(activation, weight) dtypes that the code generators of a TVM target kind take; None = not known.

    On processors they are signed integers, the weights in at most 8 bits, and in no more than activations.
    """
    if kind == "cuda":
        return [(f.name, f.name) for f in (E4M3, INT8, BFLOAT16)]
    if kind != "llvm":
        return None
    signed = [f for f in sorted(formats(), key=lambda f: -f.bits) if f.quantized and not f.is_float]
    return [
        (activation.name, weight.name)
        for activation in signed
        for weight in signed
        if weight.bits <= min(activation.bits, INT8.bits)
    ]


def _check_pairs(rule: OpRule, kind: str, problems: Problems) -> None:
    known, plain = generated_pairs(kind), PLAIN_PAIRS.get(kind, INT8_PAIR)
    for i, pair in enumerate(rule.pairs):
        path = f"op[{rule.op}].pairs[{i}]"
        if pair in rule.pairs[:i]:
            problems.add(path, f"{list(pair)} is there twice")
        elif rule.op not in WEIGHTED_OPS and pair != plain:
            problems.add(path, f"{rule.op} has no weights: only {list(plain)} is possible")
        elif known is not None and pair not in known:
            takes = " and ".join(str(list(p)) for p in known)
            problems.add(path, f"{list(pair)} has no code generator for kind {show(kind)}: it takes {takes}")


def _check_commands(toolchain: Toolchain, problems: Problems) -> None:
    for key in ("compiler", "run", "objdump"):
        command = getattr(toolchain, key)
        if command and not command[0].strip():
            problems.add(f"toolchain.{key}[0]", "must be the name of a program, not ''")


def _check_all_used(rules: list[OpRule], names: list[str], problems: Problems) -> None:
    for name in names:
        if all(rule.kernel != name for rule in rules):
            problems.add(join("kernel", name), "no [[op]] uses it: name it as `kernel` of one, or remove it")


def _check_requantize(requantize: Requantize, problems: Problems) -> None:
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


def _check_assembly(assembly: Assembly | None, kernels: dict[str, Kernel], problems: Problems) -> None:
    if assembly is None:
        return
    if assembly.registers:
        for key, operands in _OPERANDS.items():
            text = " ".join(assembly.next) if key == "next" else getattr(assembly, key)
            _check_operands(f"assembly.{key}", text, operands, problems)
    for name, kernel in kernels.items():
        if not isinstance(kernel, MatrixMultiplyKernel) or not kernel.assembly:
            continue
        path = join("kernel", name)
        _check_operands(
            f"{path}.assembly", kernel.assembly, ("accumulator", "activation", "weight"), problems
        )
        lines = -(-kernel.tile_pixels // kernel.rows)
        least = lines * kernel.tile_vectors + min(lines, kernel.tile_vectors) + 1
        if least > assembly.registers:
            problems.add(
                f"{path}.assembly",
                f"tile_pixels and tile_vectors take {least} registers or more, [assembly] has "
                f"{assembly.registers}",
            )


def _check_operands(path: str, text: str, operands: Iterable[str], problems: Problems) -> None:
    for operand in operands:
        if f"{{{operand}}}" not in text:
            problems.add(path, f"must name {{{operand}}}, but is {show(text)}")


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
