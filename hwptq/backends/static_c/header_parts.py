"""Parts of a model's header: its tensors, its state, what reads a prompt."""

from __future__ import annotations

import re
from math import prod

from hwptq.backends.program import State, Tensor

from .memory_plan import PromptPlan


def interface(tensors: tuple[Tensor, ...], upper: str, kind: str) -> list[str]:
    """What the header says of inputs or outputs."""
    sizes = ", ".join(str(t.nbytes) for t in tensors)
    what = kind.lower().replace("_", " ")
    notes = [
        f"/* {what} {i}: {re.sub('[^ -~]|[*]/', '?', t.name)} {t.dtype} {list(t.shape)} */"
        for i, t in enumerate(tensors)
    ]
    return [*notes, f"#define {upper}_{kind}_BYTES {{ {sizes} }}"]


def state_prototype(state: State, prefix: str, upper: str) -> list[str]:
    """What the header says of the caches in the arena."""
    at = [] if state.position is None else [f"#define {upper}_POSITION {state.position}"]
    return [
        f"/* An arena is a text: its first {upper}_STATE_BYTES are the caches, of {state.context} steps",
        "   at most, which nothing else may change. Copied, they are a text to go on from later. This begins",
        "   a new one.",
        *(["   Input POSITION counts the steps from 0 on. */"] if at else ["   */"]),
        f"#define {upper}_STATE_BYTES {state.nbytes}",
        *at,
        f"void {prefix}_reset(void *arena);",
        "",
    ]


def prompt_prototype(prompt: PromptPlan, prefix: str) -> list[str]:
    """What the header says of the function that reads a prompt."""
    upper, (tokens, count) = prefix.upper(), sizes_of_prompt(prompt)
    return [
        "/* Reads PROMPT_TOKENS tokens at once, from input POSITION on, as so many steps would: with the",
        "   same caches behind it, and the outputs of the last of them, in every bit. Input PROMPT_COUNT",
        "   says how many are meant, 1 to PROMPT_TOKENS; the others may be any, and change nothing. */",
        f"#define {upper}_PROMPT_TOKENS {tokens}",
        f"#define {upper}_PROMPT_COUNT {count}",
        f"#define {upper}_PROMPT_INPUTS {len(prompt.inputs)}",
        *interface(prompt.inputs, upper, "PROMPT_INPUT"),
        f"int32_t {prefix}_prompt(const void *const *inputs, void *const *outputs, void *arena);",
        "",
    ]


def sizes_of_prompt(prompt: PromptPlan) -> tuple[int, int]:
    """(how many tokens it reads, the index of the input that says how many are meant, the last one)."""
    return max(prod(t.shape) for t in prompt.inputs), len(prompt.inputs) - 1
