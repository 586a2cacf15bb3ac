"""Text token by token: what is fed to each step, where it ends, and from which models it can't be made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from step_models import CONTEXT, WORDS, step_model

import hwptq
from hwptq.backends.program import Program, Prompt, State, Tensor
from hwptq.errors import InputError
from hwptq.executors.executor import executor_for
from hwptq.generation import Generation, Sampling, StepForm

TOKEN, PLACE = Tensor("t", (1, 1), "int64"), Tensor("at", (1,), "int64")
LOGITS = Tensor("y", (1, 1, WORDS), "float32")
CACHES = State(4 * CONTEXT, (Tensor("past.k", (1, 1, CONTEXT, 1), "float32"),), 1, CONTEXT)


PROMPT = Prompt(4, (Tensor("t", (1, 4), "int64"), PLACE, Tensor("count", (1,), "int64")), 2)


def program(
    inputs: tuple[Tensor, ...] = (TOKEN, PLACE), outputs: tuple[Tensor, ...] = (LOGITS,),
    state: State | None = CACHES,
) -> Program:  # fmt: skip
    return Program(None, inputs, outputs, state=state)


@dataclass
class Counting:
    """The next token is the sum of all before it."""

    program: Program = field(default_factory=program)
    reads_prompts: bool = False
    places: list[int] = field(default_factory=list)

    def run_stream(self, samples: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        total = 0
        for sample in samples:
            self.places.append(int(sample["at"][0]))
            total += int(sample["t"][0, 0])
            logits = np.zeros((1, 1, WORDS), np.float32)
            logits[..., total % WORDS] = 9.0
            yield {"y": logits}


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


@dataclass
class ReadingPrompts(Counting):
    """The same, four tokens at a time."""

    program: Program = field(default_factory=lambda: replace(program(), prompt=PROMPT))
    reads_prompts: bool = True
    parts: list[list[int]] = field(default_factory=list)

    def run_stream(self, samples: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        total = 0
        for sample in samples:
            count = int(sample["count"][0]) if "count" in sample else 1
            part = sample["t"][0, :count].tolist()
            assert int(sample["at"][0]) == sum(map(len, self.parts))
            self.parts.append(part)
            total += sum(part)
            logits = np.zeros((1, 1, WORDS), np.float32)
            logits[..., total % WORDS] = 9.0
            yield {"y": logits}


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ([1, 2], [[1, 2]]),
        ([1], [[1]]),
        ([1, 2, 3, 4, 5], [[1, 2, 3, 4], [5]]),  # one token is a step
    ],
)
def test_a_prompt_is_read_at_once_and_its_end_step_by_step(prompt: list[int], parts: list[list[int]]) -> None:
    model, plain = ReadingPrompts(), Counting()
    made = Generation(model, prompt, 1)
    assert list(made.tokens()) == list(Generation(plain, prompt, 1).tokens())
    assert model.parts == parts
    assert made.prompt_seconds > 0
    kept = ReadingPrompts(reads_prompts=False)  # as on a board
    assert list(Generation(kept, prompt, 1).tokens()) == list(Generation(plain, prompt, 1).tokens())
    assert kept.parts == [[token] for token in prompt]


@pytest.mark.parametrize(
    ("of", "says"),
    [
        (program(state=None), "has no caches"),
        (program(inputs=(Tensor("t", (1, 9), "int64"), PLACE)), "one integer"),
        (program(inputs=(TOKEN, PLACE, Tensor("mask", (1, 6), "int64"))), "reads t, mask"),
        (program(outputs=(LOGITS, LOGITS)), "logits alone"),
    ],
)
def test_other_models_are_refused(of: Program, says: str) -> None:
    with pytest.raises(InputError, match=says):
        StepForm.of(of)


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
def step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step")
    step_model(folder / "step.onnx")
    return folder / "step.onnx"


def steps(tokens: Sequence[int]) -> list[dict[str, np.ndarray]]:
    return [{"t": np.array([[token]]), "at": np.array([i])} for i, token in enumerate(tokens)]


def test_caches_in_the_program_hold_what_caches_outside_would(step: Path) -> None:
    words = {"target": "x86-64-avx2", "activations": "dynamic"}
    inside = hwptq.compile(step, output=step.parent / "in", **words)
    outside = hwptq.compile(step, output=step.parent / "out", kv_cache="outside", **words)
    assert [t.name for t in inside.inputs] == ["t", "at"]
    assert [t.name for t in inside.outputs] == ["y"]
    state = inside.program.state
    assert state is not None
    assert (state.position, state.context, state.nbytes) == (1, CONTEXT, 4 * 8 * CONTEXT)
    assert inside.report["bit_exact"]["mismatches"] == 0

    tokens, past, wanted = [3, 1, 4, 1, 5, 9], np.zeros((1, 1, CONTEXT, 8), np.float32), []
    for sample in steps(tokens):
        out = outside.run({**sample, "past.k": past})
        past = out["new.k"]
        wanted.append(out["y"])
    alone = executor_for(replace(inside.program, library=None))  # a process of its own, by its pipes
    for stream in (inside.run_stream, lambda s: ({"y": y} for (y,) in alone.run_stream(s))):
        twice = [out["y"] for out in stream([*steps(tokens), *steps(tokens)])]  # the second text begins anew
        assert np.array_equal(np.stack(twice), np.stack(wanted * 2))
    assert not np.array_equal(inside.run(steps(tokens)[-1])["y"], wanted[-1])  # a text of its own

    text = list(inside.generate([3, 1], most=3))
    again = [int(out["y"].argmax()) for out in inside.run_stream(steps([3, 1, *text]))]
    assert text == again[1:4]


def test_a_text_can_be_kept_and_gone_on_with_from_c(step: Path, tmp_path: Path) -> None:
    model = hwptq.compile(step, target="x86-64-avx2", activations="dynamic", output=tmp_path / "kept")
    (tmp_path / "main.c").write_text(MAIN, encoding="utf-8")
    folder = tmp_path / "kept"
    command = [
        "gcc",
        "-Wall",
        "-Werror",
        f"-I{folder}",
        "main.c",
        str(folder / "step.o"),
        "-lm",
        "-o",
        "main",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = subprocess.run([tmp_path / "main"], check=True, capture_output=True).stdout
    first, second, wanted = np.frombuffer(found, np.float32).reshape(3, WORDS)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, wanted)
    assert np.array_equal(wanted, next(model.run_stream(steps([7])))["y"].ravel())


MAIN = """
#include <stdio.h>
#include <string.h>
#include "step.h"
static uint8_t arena[STEP_ARENA_BYTES] __attribute__((aligned(STEP_ALIGNMENT)));
static uint8_t kept[STEP_STATE_BYTES];
static int64_t token __attribute__((aligned(64))), at __attribute__((aligned(64)));
static float y[64] __attribute__((aligned(64)));
static void step(int64_t next, int64_t place, int show) {
    const void *inputs[] = {&token, &at};
    void *outputs[] = {y};
    token = next, at = place;
    if (step_step(inputs, outputs, arena)) return;
    if (show) fwrite(y, sizeof *y, 11, stdout);
}
int main(void) {
    step_reset(arena);
    step(3, 0, 0);
    memcpy(kept, arena, sizeof kept);
    step(5, 1, 1);
    memcpy(arena, kept, sizeof kept);
    step(5, 1, 1);
    step_reset(arena);
    step(7, 0, 1);
    return 0;
}
"""
