"""Which operators on integers the kernels that descriptors name can compute."""

from __future__ import annotations

from typing import Protocol


class WithBits(Protocol):
    """An operator on integers."""

    @property
    def activation_bits(self) -> int: ...


def reads_bytes(op: WithBits) -> bool:
    """Whether activations are bytes: kernels of products give any integers."""
    return op.activation_bits <= 8
