"""Checks that tables share: widths of vectors, groups of int4 weights, operands of assembly code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from hwptq.targets.fields.about import about
from hwptq.targets.fields.problems import Problems, join, show

MAX_VECTOR_BITS = 2048  # the widest vector of Arm SVE; Hexagon's are 1024, AVX-512's 512
MIN_VECTOR_BITS = 32


def check_vector(bits: int, formula: str, path: str, problems: Problems, hint: str = "") -> None:
    """Note a width that no vector has; `formula` says how it follows from the fields.

    hint: what else may be meant where there are too many bits.
    """
    if bits & (bits - 1) or not MIN_VECTOR_BITS <= bits <= MAX_VECTOR_BITS:
        problems.add(
            path,
            f"{formula} is {bits} bits: a vector has a power of two of bits, "
            f"{MIN_VECTOR_BITS} to {MAX_VECTOR_BITS}{hint if bits > MAX_VECTOR_BITS else ''}",
        )


def weight_group() -> int:
    """The field of kernels that unpack int4 weights with factors."""
    return field(
        default=0,
        metadata=about(
            "input channels of a group of int4 weights, which share a factor where --weight-granularity "
            "group is asked for; a multiple of 2 * k; 0 = no groups",
            low=0,
            high=1024,
        ),
    )


def check_weight_group(group: int, k: int, path: str, problems: Problems) -> None:
    """Note a group that ends inside a byte of an instruction's operand."""
    if group % (2 * k):
        problems.add(join(path, "weight_group"), f"must be a multiple of 2 * k, {2 * k}: a byte holds two")


def check_operands(path: str, text: str, operands: Iterable[str], problems: Problems) -> None:
    """Note operands that an instruction in assembly language does not name."""
    for operand in operands:
        if f"{{{operand}}}" not in text:
            problems.add(path, f"must name {{{operand}}}, but is {show(text)}")
