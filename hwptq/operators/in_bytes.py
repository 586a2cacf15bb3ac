"""Which operators on integers the kernels that descriptors name can compute."""

from __future__ import annotations

from typing import Protocol

from hwptq.tir.layout import PLAIN


class WithBits(Protocol):
    """An operator on integers."""

    @property
    def activation_bits(self) -> int: ...
    @property
    def out(self) -> str: ...


def reads_bytes(op: WithBits) -> bool:
    """Whether activations are bytes: kernels of products give any integers."""
    return op.activation_bits <= 8


def in_bytes(op: WithBits) -> bool:
    """Whether activations and result are bytes; with others, the portable code computes an operator."""
    return op.activation_bits <= 8 and op.out == PLAIN.dtype
