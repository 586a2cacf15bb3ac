"""Texts that a language model writes by itself: more of what it has learnt than samples show.

Data made by the model stands for data it was trained on (Liu et al. 2023, LLM-QAT). Token after token would
take a run of the model each; here all tokens of a text are drawn at once from what the model says behind the
text of the round before (Jacobi iteration, Santilli et al. 2023), with noise that stays the same, so that
what has the same text before it is drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .interpret import Interpreter

Sample = dict[str, np.ndarray]
_ROUNDS = 8
#: Of the surprise of a token by chance: what a model that has learnt such texts stays below.
_WORTH = 0.75


def predicts_next(interpreter: Interpreter, sample: Sample, name: str) -> bool:
    """Whether the first output is a likelihood [*tokens, V] of each next token of the input `name`: one that
    no later token changes, and that expects the sample's tokens better than chance."""
    tokens = sample[name]
    if tokens.ndim == 0 or tokens.shape[-1] < 2:
        return False
    half = tokens.shape[-1] // 2
    changed = tokens.copy()
    changed[..., half:] = np.where(tokens[..., half:] > 0, tokens[..., half:] - 1, 1)
    before, after = (interpreter.run({**sample, name: t})[0] for t in (tokens, changed))
    if before.shape[:-1] != tokens.shape or not np.array_equal(before[..., :half, :], after[..., :half, :]):
        return False
    chance = np.log(before.shape[-1])
    return _surprise(before, tokens) < _WORTH * chance


def _surprise(likely: np.ndarray, tokens: np.ndarray) -> float:
    """The mean of -log p of each token but the first, in nats."""
    logits = likely[..., :-1, :].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    found = np.take_along_axis(logits, tokens[..., 1:, None], axis=-1)[..., 0]
    return float(np.mean(np.log(np.exp(logits).sum(axis=-1)) - found))


def own_texts(
    interpreter: Interpreter, samples: Sequence[Sample], name: str, rounds: int = _ROUNDS, seed: int = 0
) -> list[Sample]:
    """As many texts as there are samples, each begun with a token of one."""
    rng = np.random.default_rng(seed)
    return [_text(interpreter, sample, name, rounds, rng) for sample in samples]


def _text(
    interpreter: Interpreter, sample: Sample, name: str, rounds: int, rng: np.random.Generator
) -> Sample:
    tokens = rng.permuted(sample[name], axis=-1)
    noise: np.ndarray | None = None
    for _ in range(rounds):
        likely = interpreter.run({**sample, name: tokens})[0]
        if noise is None:
            noise = rng.gumbel(size=likely.shape).astype(np.float32)
        drawn = tokens.copy()
        drawn[..., 1:] = (likely + noise).argmax(axis=-1)[..., :-1]
        if np.array_equal(drawn, tokens):
            break
        tokens = drawn
    return {**sample, name: tokens}
