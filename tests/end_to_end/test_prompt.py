"""Prompts by emitted code: the caches and logits of as many steps, in every bit, from one set of weights."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from prompt_models import CALIBRATION, SMALL, llama, prompts, steps

import hwptq
from hwptq.errors import InputError, UnsupportedError
from hwptq.executors.executor import executor_for
from hwptq.executors.requests import CACHES
from hwptq.golden_check import check_golden
from hwptq.options import options_of

TOKENS = 5
BY_GROUP = {
    "activations": "dynamic", "precision": "w4a8", "weight_granularity": "group", "group": 32,
}  # fmt: skip
STATIC = {"recipe": "fast", "calibration_data": steps(CALIBRATION), "evaluation_data": steps(CALIBRATION[:4])}
CASES = [
    ("arm-cortex-a", BY_GROUP),
    ("riscv64-rvv", {"activations": "dynamic"}),
    ("x86-64-avx2", STATIC),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("step") / "step.onnx"
    onnx.save(llama(), file)
    return file


def named(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "static" if "recipe" in value else value.get("precision") or value.get("kv_cache", "dynamic")


@pytest.mark.parametrize(("target", "words"), CASES, ids=named)
def test_a_prompt_is_its_steps(
    runnable: Callable[[str], str], model: Path, target: str, words: dict[str, Any], tmp_path: Path
) -> None:
    compiled = hwptq.compile(model, runnable(target), output=tmp_path / "out", prompt=TOKENS, **words)
    exact, state = compiled.report["bit_exact"], compiled.program.state
    assert state is not None
    assert exact["mismatches"] == 0
    assert exact["values"] > state.nbytes  # the caches are among what was compared
    text = np.random.default_rng(2).integers(0, SMALL.words, SMALL.context).tolist()
    run = executor_for(replace(compiled.program, library=None))  # by its pipes
    seen = 0
    for sizes in ((5, 5, 5, 5), (1, 4, 3, 4)):
        *logits, caches = run.run_stream([*steps(text[: sum(sizes)]), CACHES])
        *found, filled = run.run_stream([*prompts(text, sizes, TOKENS), CACHES])
        for size, given in zip(sizes, found, strict=True):
            seen += size
            expected = logits[seen - 1]
            assert np.array_equal(given[0].view(np.int32), expected[0].view(np.int32))
        assert np.array_equal(filled[0], caches[0])
        seen = 0


@pytest.fixture(scope="module")
def both(model: Path) -> hwptq.CompiledModel:
    output = model.parent / "both"
    return hwptq.compile(model, target="x86-64-avx2", output=output, prompt=TOKENS, **BY_GROUP)


def test_weights_are_there_once_and_a_prompt_is_text(
    model: Path, both: hwptq.CompiledModel, tmp_path: Path
) -> None:
    alone = hwptq.compile(model, target="x86-64-avx2", output=tmp_path / "alone", **BY_GROUP)
    assert both.report["bit_exact"]["mismatches"] == 0
    stored = [m.report["weight_bytes"]["quantized"] for m in (alone, both)]
    assert stored[0] <= stored[1] < stored[0] + 600  # places of tokens, and their like
    text = [3, 1, 4, 1, 5, 9, 2]
    assert both.reads_prompts
    assert not alone.reads_prompts
    assert list(both.generate(text, most=4)) == list(alone.generate(text, most=4))
    again = hwptq.load(both.folder)
    assert again.program.prompt == both.program.prompt
    assert check_golden(again).mismatches == 0


def test_a_prompt_from_c(both: hwptq.CompiledModel, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(MAIN, encoding="utf-8")
    folder = both.folder
    sources = ["main.c", str(folder / "step.o"), "-lm", "-o", "main"]
    command = ["gcc", "-Wall", "-Werror", f"-I{folder}", *sources]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], check=True, capture_output=True).stdout
    *_, expected = both.run_stream(steps([3, 1, 4, 7]))
    assert np.array_equal(np.frombuffer(done, np.float32), expected["logits"].ravel())


MAIN = """
#include <stdio.h>
#include "step.h"
static uint8_t arena[STEP_ARENA_BYTES] __attribute__((aligned(STEP_ALIGNMENT)));
static int64_t tokens[STEP_PROMPT_TOKENS] __attribute__((aligned(64))) = {3, 1, 4};
static int64_t at __attribute__((aligned(64))), count __attribute__((aligned(64))) = 3;
static float logits[64] __attribute__((aligned(64)));
int main(void) {
    const void *inputs[STEP_PROMPT_INPUTS] = {tokens, &at};
    void *outputs[] = {logits};
    inputs[STEP_PROMPT_COUNT] = &count;
    step_reset(arena);
    if (step_prompt(inputs, outputs, arena)) return 1;
    tokens[0] = 7, at = 3;
    if (step_step(inputs, outputs, arena)) return 1;
    fwrite(logits, sizeof *logits, 43, stdout);
    return 0;
}
"""


@pytest.mark.parametrize(
    ("target", "words", "says"),
    [
        ("x86-64-avx2", {"threads": 2}, "its threads share the kernels of steps alone"),
        ("arm-cortex-m55", {}, "its programs run without a C library"),
        ("nvidia-ada-fp8", {}, "programs for a GPU read one token at a time"),
    ],
)
def test_targets_that_can_not_say_why(
    model: Path, target: str, words: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        hwptq.compile(
            model, target, activations="dynamic", prompt=4, output=tmp_path / "o", executor="none", **words
        )


def test_models_that_are_no_steps_are_refused(tmp_path: Path) -> None:
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    weight = onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    value = onnx.helper.make_tensor_value_info
    x, y = (value(name, onnx.TensorProto.FLOAT, [1, 8]) for name in "xy")
    graph = onnx.helper.make_graph([node], "g", [x], [y], [weight])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "g.onnx"
    )
    with pytest.raises(UnsupportedError, match="no caches: only a step"):
        hwptq.compile(
            tmp_path / "g.onnx", "x86-64-avx2", activations="dynamic", prompt=4, output=tmp_path / "o"
        )  # fmt: skip


def test_options_that_contradict_it() -> None:
    with pytest.raises(InputError, match="leave --kv-cache outside out"):
        options_of(None, prompt=4, kv_cache="outside")
    with pytest.raises(InputError, match="must be 2 or more"):
        options_of(None, prompt=1)
