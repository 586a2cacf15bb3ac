"""The small language model of the data folder: its files, its tokens, and how it is compiled and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hwptq
from hwptq.metrics.perplexity import perplexity

Samples = list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class DocsLm:
    """The files in `folder`: prefill.onnx reads a text at once, decode.onnx a token."""

    folder: Path

    @classmethod
    def of(cls, data: Path) -> DocsLm:
        """That of the data folder."""
        return cls(data / "docs-lm")

    def tokens(self, kind: str) -> np.ndarray:
        """int64 [texts, length] of "calibration" or "evaluation"."""
        return np.load(self.folder / "tokens.npz")[kind].astype(np.int64)

    def at_once(self, texts: np.ndarray) -> Samples:
        """Texts as prefill.onnx reads them."""
        return [{"input_ids": ids[None]} for ids in texts]

    def by_step(self, text: np.ndarray) -> Samples:
        """The steps of a text as decode.onnx reads them."""
        return [{"input_ids": token.reshape(1, 1), "position": np.array([i])} for i, token in enumerate(text)]

    def compile(self, graph: str, target: str, output: Path, **options: Any) -> hwptq.CompiledModel:
        """A graph with int8 activations for each token and weights by group."""
        words = {"activations": "dynamic", "weight_granularity": "group", **options}
        return hwptq.compile(self.folder / graph, target, output=output, **words)


def perplexity_of(logits: Callable[[np.ndarray], np.ndarray], texts: Iterable[np.ndarray]) -> float:
    """Every token but the first of each text predicted; logits(the other tokens [L]) -> [L, V]."""
    losses = [np.log(perplexity([logits(text[:-1])[None]], text[None, 1:], [])) for text in texts]
    return float(np.exp(np.mean(losses)))
