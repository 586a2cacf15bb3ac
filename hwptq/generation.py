"""Text from a compiled language model: one token a step, its caches carried from step to step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import numpy as np

from .backends.program import Tensor
from .errors import InputError


class Decoder(Protocol):
    """What is asked of a compiled model."""

    @property
    def inputs(self) -> Sequence[Tensor]: ...
    @property
    def outputs(self) -> Sequence[Tensor]: ...
    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class StepForm:
    """What the inputs and outputs of the graph of one step are.

    tokens: integer [1, 1]; position: integer of one element, how many tokens came before; logits: float
    [1, 1, V]; caches: pairs of an input and the output of the same shape that is fed to it in the next step.
    """

    tokens: Tensor
    position: Tensor | None
    logits: Tensor
    caches: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, model: Decoder) -> StepForm:
        """By dtypes, shapes and order. Raises InputError where the model is no step, or its caches grow."""
        whole = [t for t in model.inputs if np.issubdtype(t.numpy_dtype, np.integer)]
        past = [t for t in model.inputs if t not in whole]
        logits, *present = model.outputs
        if not whole or len(whole) > 2 or int(np.prod(whole[0].shape)) != 1:
            raise InputError(
                "it doesn't take one token a step: compile the graph of a decoding step, with inputs [1, 1] "
                "for the token, [1] for its position, and its caches"
            )
        if [t.shape for t in past] != [t.shape for t in present] or not past:
            raise InputError(
                f"its {len(past)} inputs of floats and {len(present)} outputs behind the first differ in "
                "number or shape: caches must have a fixed size, and come in one order on both sides"
            )
        position = whole[1] if len(whole) == 2 else None
        return cls(whole[0], position, logits, tuple(zip(past, present, strict=True)))

    @property
    def context(self) -> int:
        """The most tokens of prompt and answer: of [1, heads, N, width], the longest axis but the last."""
        return max(self.caches[0][0].shape[:-1])


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest at temperature 0, else at random by softmax of the `top`
    likeliest (0 = all) logits over the temperature."""

    temperature: float = 0.0
    top: int = 0
    seed: int = 0

    def chooser(self) -> Chooser:
        """A choice of tokens with its own random numbers."""
        return Chooser(self, np.random.default_rng(self.seed))


@dataclass(frozen=True)
class Chooser:
    """Draws tokens from logits."""

    sampling: Sampling
    random: np.random.Generator

    def choose(self, logits: np.ndarray) -> int:
        """The next token, of logits [V]. Raises InputError where they are not finite."""
        if not np.isfinite(logits).all():
            raise InputError("the logits are not finite")
        if self.sampling.temperature <= 0:
            return int(logits.argmax())
        likely = np.argsort(-logits, kind="stable")[: self.sampling.top or None]
        scaled = logits[likely].astype(np.float64) / self.sampling.temperature
        weights = np.exp(scaled - scaled.max())
        return int(self.random.choice(likely, p=weights / weights.sum()))


@dataclass
class Generation:
    """Tokens one after the other; `seconds` counts the steps behind the prompt alone.

    Raises InputError where the model is no step (StepForm), or prompt and answer exceed its context.
    """

    model: Decoder
    prompt: Sequence[int]
    most: int
    sampling: Sampling = Sampling()
    stop: frozenset[int] = frozenset()
    seconds: float = field(default=0.0, init=False)
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.form = StepForm.of(self.model)
        vocabulary = int(self.form.logits.shape[-1])
        if not self.prompt:
            raise InputError("the prompt has no tokens")
        if max(self.prompt) >= vocabulary:
            raise InputError(f"the tokenizer gives token {max(self.prompt)}, the model has {vocabulary}")
        if len(self.prompt) >= self.form.context:
            raise InputError(f"the prompt has {len(self.prompt)} tokens, the model holds {self.form.context}")

    def tokens(self) -> Iterator[int]:
        """Each token as it is made, until `most`, a stop token, or the end of the context."""
        caches = {past.name: np.zeros(past.shape, past.numpy_dtype) for past, _ in self.form.caches}
        chooser = self.sampling.chooser()
        for place, token in enumerate(self.prompt):
            logits = self._step(token, place, caches)
        for place in range(len(self.prompt), len(self.prompt) + self.most):
            token = chooser.choose(logits)
            yield token
            last = place == len(self.prompt) + self.most - 1 or place >= self.form.context
            if token in self.stop or last:
                return
            begun = perf_counter()
            logits = self._step(token, place, caches)
            self.seconds += perf_counter() - begun
            self.steps += 1

    def _step(self, token: int, place: int, caches: dict[str, np.ndarray]) -> np.ndarray:
        """The logits [V] behind a token; `caches` become those of the next step."""
        form = self.form
        inputs = dict(caches)
        inputs[form.tokens.name] = np.full(form.tokens.shape, token, form.tokens.numpy_dtype)
        if form.position is not None:
            inputs[form.position.name] = np.full(form.position.shape, place, form.position.numpy_dtype)
        outputs = self.model.run(inputs)
        caches.update({past.name: outputs[present.name] for past, present in form.caches})
        return outputs[form.logits.name].reshape(-1)
