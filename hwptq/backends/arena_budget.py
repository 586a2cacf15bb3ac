"""Activations against a limit: which layer needs most of the arena, and whether that is allowed."""

from __future__ import annotations

from collections.abc import Sequence

import tvm

from hwptq.bitwidths.budget import Budget
from hwptq.errors import BudgetError, InputError

from .called_layers import called_layers
from .program import Program, Stay


def check_arena(program: Program, kernels: tvm.IRModule, budget: Budget) -> None:
    """Raise BudgetError, with the layer that needs most, where activations exceed a budget of kind "arena";
    InputError where nobody plans an arena."""
    if not program.stays:
        raise InputError(f"--budget {budget}: activations of this target are not planned ahead")
    if program.arena_bytes > budget.value:
        layer, most = fullest_layer(program.stays, program.calls, kernels)
        raise BudgetError(
            f"--budget {budget}: activations take {program.arena_bytes} bytes; {layer} needs most, {most} "
            "for what it reads, what it writes and what waits for later layers"
        )


def fullest_layer(stays: Sequence[Stay], calls: Sequence[str], kernels: tvm.IRModule) -> tuple[str, int]:
    """The layer at whose call most of the arena is in use, and the bytes."""
    used = [sum(s.size for s in stays if s.born <= i <= s.last) for i in range(len(calls))]
    names = [row["name"] for row in called_layers(calls, kernels)]
    most = max(used)
    return names[used.index(most)], most
