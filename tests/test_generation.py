"""Text token by token: what is fed to each step, where it ends, and from which models it can't be made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from step_models import CONTEXT, WORDS, step_model

import hwptq
from hwptq.backends.program import Tensor
from hwptq.errors import InputError
from hwptq.generation import Generation, Sampling, StepForm

CACHE = (1, 1, CONTEXT, 1)


def tensor(name: str, shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
    return Tensor(name, shape, dtype)


@dataclass
class Counting:
    """The next token is the sum of all before it; the cache holds them."""

    inputs: Sequence[Tensor] = (
        tensor("t", (1, 1), "int64"), tensor("at", (1,), "int64"), tensor("past.k", CACHE),
    )  # fmt: skip
    outputs: Sequence[Tensor] = (tensor("y", (1, 1, WORDS)), tensor("new.k", CACHE))
    places: list[int] = field(default_factory=list)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        place = int(inputs["at"][0])
        self.places.append(place)
        cache = inputs["past.k"].copy()
        cache[0, 0, place, 0] = inputs["t"][0, 0]
        logits = np.zeros((1, 1, WORDS), np.float32)
        logits[..., int(cache.sum()) % WORDS] = 9.0
        return {"y": logits, "new.k": cache}


def test_each_step_reads_what_those_before_it_left() -> None:
    model = Counting()
    assert list(Generation(model, [1, 2], 3).tokens()) == [3, 6, 1]
    assert model.places == [0, 1, 2, 3]


def test_it_ends_behind_a_stop_token_and_with_the_context() -> None:
    assert list(Generation(Counting(), [1, 2], 3, stop=frozenset([6])).tokens()) == [3, 6]
    assert len(list(Generation(Counting(), [1, 2], 100).tokens())) == CONTEXT - 2 + 1


def test_a_seed_repeats_its_text_and_one_likely_word_is_the_likeliest() -> None:
    drawn = [list(Generation(Counting(), [1], 5, Sampling(30.0, 0, seed)).tokens()) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert list(Generation(Counting(), [1, 2], 3, Sampling(1.0, top=1)).tokens()) == [3, 6, 1]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Counting(inputs=(tensor("x", (1, 3, 8, 8)),)), "one token a step"),
        (Counting(inputs=(tensor("t", (1, 9), "int64"),)), "one token a step"),
        (Counting(inputs=(tensor("t", (1, 1), "int64"), tensor("past", (1, 1, 5, 1)))), "fixed size"),
        (Counting(inputs=Counting().inputs[:2], outputs=Counting().outputs[:1]), "fixed size"),
    ],
)
def test_other_models_are_refused(model: Counting, says: str) -> None:
    with pytest.raises(InputError, match=says):
        StepForm.of(model)


@pytest.mark.parametrize(
    ("prompt", "says"), [([], "no tokens"), ([WORDS], "the model has 11"), ([1] * CONTEXT, "holds 6")]
)
def test_prompts_that_do_not_fit_are_refused(prompt: list[int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Generation(Counting(), prompt, 3)


def test_logits_that_are_not_finite_are_no_text() -> None:
    chooser = Sampling().chooser()
    with pytest.raises(InputError, match="not finite"):
        chooser.choose(np.array([1, np.nan], np.float32))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step")
    step_model(folder / "step.onnx")
    out = folder / "out"
    hwptq.compile(folder / "step.onnx", target="x86-64-avx2", output=out, activations="dynamic")
    return out


def test_emitted_code_makes_text(compiled: Path) -> None:
    model = hwptq.load(compiled)
    found = list(model.generate([3, 1], most=3))
    form, caches = StepForm.of(model), np.zeros((1, 1, CONTEXT, 8), np.float32)
    tokens = [3, 1, *found]
    for place, token in enumerate(tokens[:-1]):
        out = model.run({"t": np.array([[token]]), "at": np.array([place]), "past.k": caches})
        caches = out["new.k"]
        if place >= 1:
            assert int(out["y"].argmax()) == tokens[place + 1]
    assert form.context == CONTEXT
    assert len(found) == 3
