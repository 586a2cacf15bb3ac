"""A model in this process: the same bits as its program, from any number of threads."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_models import MODELS

import hwptq
from hwptq.backends.host import architecture
from hwptq.errors import InputError
from hwptq.options import Options
from hwptq.recipe import RECIPES
from hwptq.tir import vector_unit

X86, ARM = "x86-64-avx2", "arm-cortex-a"


@pytest.fixture(scope="module")
def threaded(runnable: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The demo with a pool of threads."""
    folder = tmp_path_factory.mktemp("threaded") / "out"
    options = Options(threads=2, recipe=RECIPES["fast"])
    return hwptq.compile(
        **MODELS["demo"].arguments(8, 8), target=runnable(X86), output=folder, options=options
    )


def golden(model: Any) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Golden inputs and the output of each."""
    arrays = np.load(model.folder / "golden.npz")
    (tensor,) = model.inputs
    return [
        ({tensor.name: x[np.newaxis]}, y[np.newaxis])
        for x, y in zip(arrays[tensor.name], arrays["output_0"], strict=True)
    ]


def wrong_in(model: Any, turns: int, found: list[int]) -> None:
    """Append how many of `turns` calls gave other bits than the golden ones."""
    cases = golden(model)
    wrong = 0
    for turn in range(turns):
        inputs, y = cases[turn % len(cases)]
        (out,) = model.run(inputs).values()
        wrong += not np.array_equal(out, y)
    found.append(wrong)


def test_another_model_in_the_same_folder(runnable: Callable[[str], str], tmp_path: Path) -> None:
    """Each is computed by its own library, also where the file of the first one has been replaced."""
    found: list[int] = []
    models = []
    for granularity in ("channel", "tensor"):
        options = Options(recipe=RECIPES["fast"], weight_granularity=granularity)
        arguments = MODELS["demo"].arguments(8, 8)
        models.append(
            hwptq.compile(**arguments, target=runnable(X86), output=tmp_path / "out", options=options)
        )
        wrong_in(models[-1], 8, found)
    assert found == [0, 0]
    first, second = (np.stack([m.run(x)["logits"] for x, _ in golden(models[1])]) for m in models)
    assert np.any(first != second)


def test_it_is_the_default_where_the_code_runs_here(demo: Callable[[str], Any]) -> None:
    assert demo(X86).running.name == "in process"
    assert demo(ARM).running.name == "process"


@pytest.mark.parametrize("name", ["in process", "process"])
def test_both_executors_give_the_golden_outputs(demo: Callable[[str], Any], name: str) -> None:
    model = hwptq.load(demo(X86).folder, executor=name)
    found: list[int] = []
    wrong_in(model, len(golden(model)), found)
    assert found == [0]


def test_several_models_on_several_threads(demo: Callable[[str], Any], threaded: Any) -> None:
    """Each model twice, once as the same object and once loaded anew."""
    models = [demo(X86), demo(X86), threaded, hwptq.load(threaded.folder)]
    found: list[int] = []
    threads = [threading.Thread(target=wrong_in, args=(model, 500, found)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [0] * len(models)


def test_callers_take_turns_at_a_pool(threaded: Any) -> None:
    library = ctypes.CDLL(str(threaded.program.library.file))
    assert library.digits_threads(2) in (1, 2)  # 1: no kernel of it can be shared
    found: list[int] = []
    threads = [threading.Thread(target=wrong_in, args=(threaded, 300, found)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [0, 0]


def test_inputs_may_lie_anywhere(demo: Callable[[str], Any]) -> None:
    """Strided, reversed and unaligned arrays, and those that nobody may write to."""
    model = demo(X86)
    inputs, y = golden(model)[0]
    ((name, x),) = inputs.items()
    room = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = room[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    constant = x.copy()
    constant.flags.writeable = False
    backwards = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    for given in (unaligned, constant, backwards, np.asfortranarray(x)):
        np.testing.assert_array_equal(model.run({name: given})["logits"], y)


def test_outputs_of_one_call_outlive_the_next(demo: Callable[[str], Any]) -> None:
    model = demo(X86)
    (first, y), (second, _), *_ = golden(model)
    kept = model.run(first)["logits"]
    model.run(second)
    np.testing.assert_array_equal(kept, y)


def test_code_of_another_machine_is_refused_before_it_is_loaded(demo: Callable[[str], Any]) -> None:
    model = demo(X86)
    wings = replace(model.program, machine=replace(model.program.machine, cpu_features=("wings",)))
    with pytest.raises(InputError, match="can't be run here: in process: this machine's CPU lacks wings"):
        replace(model, program=wings).run(golden(model)[0][0])
    foreign = replace(model.program, machine=replace(model.program.machine, architecture="s390x"))
    with pytest.raises(InputError, match=f"it is code for s390x, and this machine is {architecture()}"):
        replace(model, program=foreign).run(golden(model)[0][0])


def test_an_unknown_executor_is_one_line(demo: Callable[[str], Any]) -> None:
    with pytest.raises(InputError, match=r"no executor 'wings'; there are .*gpu, in process, process"):
        hwptq.load(demo(X86).folder, executor="wings").run({})


TWO_MODELS = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "digits.h"
#include "other.h"
typedef int32_t (*Run)(const void *const *, void *const *, void *);
struct Job { Run run; size_t arena; int wrong; };
static _Alignas(64) float in[4096];
static void once(struct Job *job, float *out, void *arena) {
    const void *inputs[] = {in};
    void *outputs[] = {out};
    job->wrong += job->run(inputs, outputs, arena) != 0;
}
static void *work(void *p) {
    struct Job *job = p;
    void *arena = aligned_alloc(64, (job->arena + 63) / 64 * 64);
    _Alignas(64) float first[16] = {0}, again[16];
    once(job, first, arena);
    for (int i = 0; i < 400; i++) {
        memset(again, 0, sizeof again);
        once(job, again, arena);
        job->wrong += memcmp(first, again, 40) != 0;
    }
    free(arena);
    return 0;
}
int main(void) {
    for (int i = 0; i < 4096; i++) in[i] = (float)(i % 17) / 17;
    THREADS;
    struct Job jobs[3] = {{digits_run, DIGITS_ARENA_BYTES, 0}, {other_run, OTHER_ARENA_BYTES, 0},
                          {digits_run, DIGITS_ARENA_BYTES, 0}};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], 0, work, &jobs[i]);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
    printf("%d %d %d", jobs[0].wrong, jobs[1].wrong, jobs[2].wrong);
    return 0;
}
"""


@pytest.fixture(scope="module")
def two_objects(runnable: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a compiler takes to build a program with the demo in it twice, each with a pool of threads."""
    arguments, folder = MODELS["demo"].arguments(2, 1), tmp_path_factory.mktemp("two")
    options = Options(threads=2, recipe=RECIPES["fast"])
    objects: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_unit, "_LEAST_SHARED", 0)  # the demo is small
        for name in ("digits", "other"):
            path = shutil.copy(arguments["model"], folder / f"{name}.onnx")
            out = folder / f"out_{name}"
            hwptq.compile(**{**arguments, "model": path}, target=runnable(X86), output=out, options=options)
            objects += [f"-I{out}", out / f"{name}.o"]
    return objects


@pytest.mark.parametrize("threads", ["(void)0", "digits_threads(2), other_threads(2)"])
def test_two_models_in_one_program(threads: str, two_objects: list[Any], tmp_path: Path) -> None:
    """One of them called from two threads: each has a pool and scratch memory of its own."""
    (tmp_path / "two.c").write_text(TWO_MODELS.replace("THREADS", threads), encoding="utf-8")
    flags = ["-O1", "-Wall", "-Werror", "-pthread"]
    subprocess.run(
        ["gcc", *flags, "two.c", *two_objects, "-lm", "-o", "two"], cwd=tmp_path, check=True
    )  # fmt: skip
    done = subprocess.run([tmp_path / "two"], capture_output=True, check=True, timeout=120, text=True)
    assert done.stdout == "0 0 0"
