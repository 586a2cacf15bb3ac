"""Text from a compiled language model: its prompt at once, where the program can, then token by token.

The caches live in the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import perf_counter
from typing import Protocol

import numpy as np

from .backends.program import Program, Prompt, Tensor
from .errors import InputError

#: A step, or a part of a prompt -> the logits behind it, [V].
Read = Callable[[dict[str, np.ndarray]], np.ndarray]
#: A prompt of T tokens takes as long however few are meant: about as long as T / 4 steps.
_STEPS_OF_A_PROMPT = 4


class Decoder(Protocol):
    """What is asked of a compiled model."""

    @property
    def program(self) -> Program: ...
    @property
    def reads_prompts(self) -> bool: ...
    def run_stream(self, samples: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]: ...


@dataclass(frozen=True)
class StepForm:
    """What the inputs and outputs of a program with caches are.

    tokens: integer [1, 1]; position: integer of one element, how many tokens came before; logits: float
    [1, 1, V]; context: the most tokens of prompt and answer.
    """

    tokens: Tensor
    position: Tensor | None
    logits: Tensor
    context: int

    @classmethod
    def of(cls, program: Program) -> StepForm:
        """Raises InputError where the program is no step of a language model."""
        if program.state is None:
            raise InputError(
                "its program has no caches: compile the graph of a decoding step, with inputs [1, 1] for the "
                "token and [1] for its position, and caches that it gives again with a row written into them"
            )
        at = program.state.position
        position = None if at is None else program.inputs[at]
        others = [t for t in program.inputs if t is not position]
        if len(others) != 1 or not _is_one_integer(others[0]):
            raise InputError(
                f"beside caches and position it reads {', '.join(t.name for t in others) or 'nothing'}: "
                "a step takes one integer [1, 1], the token"
            )
        if len(program.outputs) != 1:
            names = ", ".join(t.name for t in program.outputs)
            raise InputError(f"beside caches it gives {names}: a step gives logits alone")
        return cls(others[0], position, program.outputs[0], program.state.context)


def prompt_tensors(form: StepForm, prompt: Prompt) -> tuple[Tensor, Tensor, Tensor]:
    """The inputs of a prompt: tokens, position, how many are meant."""
    assert form.position
    by_name = {t.name: t for t in prompt.inputs}
    return by_name[form.tokens.name], by_name[form.position.name], prompt.inputs[prompt.count]


def _is_one_integer(tensor: Tensor) -> bool:
    return np.issubdtype(tensor.numpy_dtype, np.integer) and int(np.prod(tensor.shape)) == 1


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
    """Tokens one after the other; `seconds` counts the steps behind the prompt alone, `prompt_seconds` what
    comes before them.

    Raises InputError where the model is no step (StepForm), or prompt and answer exceed its context.
    """

    model: Decoder
    prompt: Sequence[int]
    most: int
    sampling: Sampling = Sampling()
    stop: frozenset[int] = frozenset()
    seconds: float = field(default=0.0, init=False)
    prompt_seconds: float = field(default=0.0, init=False)
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.form = StepForm.of(self.model.program)
        vocabulary = int(self.form.logits.shape[-1])
        if not self.prompt:
            raise InputError("the prompt has no tokens")
        if max(self.prompt) >= vocabulary:
            raise InputError(f"the tokenizer gives token {max(self.prompt)}, the model has {vocabulary}")
        if len(self.prompt) >= self.form.context:
            raise InputError(f"the prompt has {len(self.prompt)} tokens, the model holds {self.form.context}")

    def tokens(self) -> Iterator[int]:
        """Each token as it is made, until `most`, a stop token, or the end of the context."""
        waiting: SimpleQueue[dict[str, np.ndarray] | None] = SimpleQueue()
        outputs = self.model.run_stream(iter(waiting.get, None))

        def read(sample: dict[str, np.ndarray]) -> np.ndarray:
            waiting.put(sample)
            return next(outputs)[self.form.logits.name].reshape(-1)

        try:
            yield from self._text(read)
        finally:
            waiting.put(None)

    def _text(self, read: Read) -> Iterator[int]:
        chooser, first = self.sampling.chooser(), len(self.prompt)
        begun = perf_counter()
        for sample in self._prompt_samples():
            logits = read(sample)
        self.prompt_seconds = perf_counter() - begun
        for place in range(first, first + self.most):
            token = chooser.choose(logits)
            yield token
            if token in self.stop or place == first + self.most - 1 or place >= self.form.context:
                return
            begun = perf_counter()
            logits = read(self._inputs(token, place))
            self.seconds += perf_counter() - begun
            self.steps += 1

    def _prompt_samples(self) -> Iterator[dict[str, np.ndarray]]:
        """What reads the prompt: as much of it at once as the program can, the rest token by token where that
        should be less work."""
        form, prompt = self.form, self.model.program.prompt
        place = 0
        while prompt and form.position and self.model.reads_prompts:
            tokens = self.prompt[place : place + prompt.tokens]
            if len(tokens) * _STEPS_OF_A_PROMPT <= prompt.tokens:
                break
            wide, at, count = prompt_tensors(form, prompt)
            padded = [*tokens, *[tokens[-1]] * (prompt.tokens - len(tokens))]
            yield {
                wide.name: np.array(padded, wide.numpy_dtype).reshape(wide.shape),
                at.name: np.full(at.shape, place, at.numpy_dtype),
                count.name: np.full(count.shape, len(tokens), count.numpy_dtype),
            }
            place += len(tokens)
        yield from (self._inputs(token, at) for at, token in enumerate(self.prompt[place:], place))

    def _inputs(self, token: int, place: int) -> dict[str, np.ndarray]:
        form = self.form
        inputs = {form.tokens.name: np.full(form.tokens.shape, token, form.tokens.numpy_dtype)}
        if form.position is not None:
            inputs[form.position.name] = np.full(form.position.shape, place, form.position.numpy_dtype)
        return inputs
