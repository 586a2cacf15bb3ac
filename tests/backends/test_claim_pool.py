"""The pool of threads: every part is done once, failures are told, and ThreadSanitizer sees no race."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hwptq.backends.static_c.c_source import data_file

_MAIN = r"""
#define _GNU_SOURCE
#define POOL_THREADS 4
#define POOL_MOST 1
#define POOL_INPUTS 1
#define POOL_OUTPUTS 1
#include "claim_pool.c"
#include <stdio.h>
#include <stdlib.h>

static int done[4096]; /* plain memory: what one kernel writes, the next one reads, on any thread */
static int fails;

static int mirror(int part, Group *group, void *data) {
    int extent = *(int *)data, size = (extent + group->parts - 1) / group->parts;
    for (int i = part * size; i < (part + 1) * size && i < extent; i++) done[2048 + i] = done[extent - 1 - i];
    return 0;
}

static int forth(int part, Group *group, void *data) {
    int extent = *(int *)data, size = (extent + group->parts - 1) / group->parts;
    for (int i = part * size; i < (part + 1) * size && i < extent; i++) done[i] = done[2048 + i] + 1;
    return fails && part == 0 ? -1 : 0;
}

static int one_more(int part, Group *group, void *data) { /* in parts, but never shared */
    if (part || group->parts != 1) exit(5);
    for (int i = 0; i < *(int *)data; i++) done[i]++;
    return 0;
}

/* Who comes late runs it too, when the inputs may be gone: only who has claimed a part reads them. */
static int32_t pool_calls(const void *const *inputs, void *const *outputs, uint8_t *arena) {
    void *extent = (void *)inputs[0];
    (void)arena;
    if (pool_mine(0)) for (int i = 0; i < *(int *)extent; i++) done[i] = i;
    if (pool_mine(1)) pool_launch(mirror, extent, 0);
    if (pool_mine(1)) pool_launch(forth, extent, 0);
    if (pool_mine(0)) pool_launch(one_more, extent, 0);
    if (pool_mine(1)) pool_launch(mirror, extent, 0);
    if (pool_mine(0)) *(int *)outputs[0] = done[2048];
    return 0;
}

/* One inference, called by a thread of its own. */
static void *infer(void *extent) {
    int first;
    const void *inputs[] = {extent};
    void *outputs[] = {&first};
    if (pool_run(inputs, outputs, 0)) exit(1);
    if (first != 2) exit(2); /* the last of done */
    for (int i = 0; i < *(int *)extent; i++)
        if (done[i] != *(int *)extent - i + 1) exit(2);
    return 0;
}

int main(int count, char **arguments) {
    int threads = 1, most = atoi(arguments[1]), inferences = atoi(arguments[2]);
    for (int n = 0; n < inferences; n++) {
        int extent = 1 + n * 37 % 1000;
        if (n % 100 == 50 && threads < most) threads = pool_start(threads + 1); /* more on the way */
        if (n % 500 == 499) {
            pthread_t caller;
            pthread_create(&caller, 0, infer, &extent);
            pthread_join(caller, 0);
        } else infer(&extent);
    }
    fails = 1;
    int extent = 100, first;
    const void *inputs[] = {&extent};
    void *outputs[] = {&first};
    if (threads > 1 && !pool_run(inputs, outputs, 0)) return 3;
    fails = 0;
    if (pool_run(inputs, outputs, 0)) return 4;
    printf("%d\n", threads);
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool with a main of its own, watched by ThreadSanitizer."""
    folder = tmp_path_factory.mktemp("pool")
    pool = data_file("claim_pool.c")
    assert "POOL_WORTH 3 " in pool
    (folder / "claim_pool.c").write_text(pool.replace("POOL_WORTH 3 ", "POOL_WORTH 0 "))  # shares in any case
    (folder / "main.c").write_text(_MAIN)
    command = [
        "gcc",
        "-std=gnu11",
        "-O1",
        "-g",
        "-Wall",
        "-fsanitize=thread",
        "-pthread",
        "main.c",
        "-o",
        "main",
    ]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if "tsan" in built.stderr:
        pytest.skip("no ThreadSanitizer here")
    assert built.returncode == 0, built.stderr
    return folder / "main"


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_every_part_is_done_once_without_a_race(program: Path, threads: int) -> None:
    run = subprocess.run(
        [program, str(threads), "1500"], capture_output=True, text=True, check=False, timeout=120
    )
    assert "WARNING: ThreadSanitizer" not in run.stderr, run.stderr
    assert (run.returncode, run.stdout) == (0, f"{threads}\n"), run.stderr


def test_there_are_no_more_threads_than_compiled_for(program: Path) -> None:
    run = subprocess.run([program, "9", "500"], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout == "4\n"
