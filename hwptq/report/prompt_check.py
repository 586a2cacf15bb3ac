"""Whether a prompt that is read at once leaves what the same tokens leave one by one: logits and caches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice

import numpy as np

from hwptq.backends.program import Program
from hwptq.executors.executor import Executor
from hwptq.executors.requests import CACHES

_MOST = 128  # tokens of the first part: each is a step, too
_BEHIND = 3  # tokens of a second part, which is not full

Sample = Mapping[str, np.ndarray]


def check_prompt(
    running: Executor, program: Program, samples: Iterable[Sample]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, what steps have given, what the prompt has given) for each output and the bytes of all caches,
    behind two parts of a text; its tokens are those of `samples`, over and over. Nothing of a program that
    reads no prompts, or where it is run in a way that reads none.
    """
    if program.prompt is None or program.state is None or not running.prompts:
        return
    text = _Text.of(program, samples)
    parts = [part for part in text.parts if part]
    by_step = running.run_stream([*(text.step(i) for i in range(sum(map(len, parts)))), CACHES])
    *steps, caches = list(by_step)
    *prompts, filled = list(running.run_stream([*map(text.prompt, parts), CACHES]))
    for part, given in zip(parts, prompts, strict=True):
        for tensor, expected, found in zip(program.outputs, steps[part.stop - 1], given, strict=True):
            yield f"{tensor.name} behind {part.stop} tokens at once", expected, found
    yield "caches behind a prompt at once", caches[0], filled[0]


class _Text:
    """Tokens as samples of a program."""

    def __init__(self, program: Program, tokens: Sequence[np.ndarray]):
        assert program.prompt
        assert program.state
        self._program, self._prompt, self._tokens = program, program.prompt, tokens
        at = program.state.position
        assert at is not None
        self._position = at
        self._token = next(i for i in range(len(program.inputs)) if i != at)
        first = min(self._prompt.tokens, _MOST, program.state.context)
        last = min(first + min(_BEHIND, self._prompt.tokens), program.state.context)
        self.parts = (range(first), range(first, last))

    @classmethod
    def of(cls, program: Program, samples: Iterable[Sample]) -> _Text:
        """A text of the tokens in steps that were given, of zeros where there are none."""
        names = [t.name for i, t in enumerate(program.inputs) if i != program.state.position]  # type: ignore[union-attr]
        found = [np.asarray(sample[names[0]]).reshape(()) for sample in samples]
        return cls(program, list(islice(cycle(found or [np.array(0)]), 2 * _MOST)))

    def step(self, at: int) -> dict[str, np.ndarray]:
        """The step of token number `at`."""
        values = {self._position: at, self._token: self._tokens[at]}
        inputs = enumerate(self._program.inputs)
        return {t.name: np.full(t.shape, values[i], t.numpy_dtype) for i, t in inputs}

    def prompt(self, part: range) -> dict[str, np.ndarray]:
        """Some of them at once; those that are not meant are zeros."""
        found = {}
        for i, t in enumerate(self._prompt.inputs):
            value = np.full(t.shape, len(part) if i == self._prompt.count else part.start, t.numpy_dtype)
            if i == self._token:
                value = np.zeros(t.shape, t.numpy_dtype)
                value.reshape(-1)[: len(part)] = [self._tokens[at] for at in part]
            found[t.name] = value
        return found
