"""The pool of threads: every part is done once, failures are told, and ThreadSanitizer sees no race."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hwptq.backends.c_source import data_file

_MAIN = r"""
#define POOL_THREADS 4
#include "claim_pool.c"
#include <stdio.h>
#include <stdlib.h>

static int done[4096]; /* plain memory: what one launch writes, the next one reads, on any thread */
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

int main(int count, char **arguments) {
    int threads = pool_start(atoi(arguments[1])), launches = atoi(arguments[2]);
    for (int n = 0; n < launches; n++) {
        int extent = 1 + n * 37 % 1000;
        for (int i = 0; i < extent; i++) done[i] = i;
        if (pool_launch(mirror, &extent, 0) || pool_launch(forth, &extent, 0)) return 1;
        for (int i = 0; i < extent; i++)
            if (done[i] != extent - i) return 2;
    }
    fails = 1;
    int extent = 100;
    if (!pool_launch(forth, &extent, 0)) return 3;
    fails = 0;
    if (pool_launch(forth, &extent, 0)) return 4;
    printf("%d\n", threads);
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool with a main of its own, watched by ThreadSanitizer."""
    folder = tmp_path_factory.mktemp("pool")
    (folder / "claim_pool.c").write_text(data_file("claim_pool.c"))
    (folder / "main.c").write_text(_MAIN)
    command = [
        "gcc",
        "-std=c11",
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
    run = subprocess.run([program, "9", "10"], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout == "4\n"
