"""Static programs of hwptq for the benchmarks, and a process that times one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from models import Case

from hwptq.backends.program import Program
from hwptq.backends.static_c.static_program import build_program
from hwptq.data.dataset import from_batches
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.options import Options
from hwptq.pipeline.stages import Graphs, lower, quantize
from hwptq.pipeline.step import Job
from hwptq.recipe import RECIPES
from hwptq.targets import Descriptor


def quantized(case: Case, target: Descriptor, threads: int = 1) -> tuple[Graphs, tuple[str, ...]]:
    """The graphs of a case for `target`, and the names of its outputs."""
    imported = import_onnx(case.model)
    samples = from_batches(case.samples, imported.inputs, None)
    job = Job(target, samples, Options(recipe=RECIPES[case.recipe], threads=threads))
    return lower(quantize(imported.module, job), job), imported.outputs


def build(case: Case, target: Descriptor, folder: Path, threads: int = 1) -> Program:
    """The static program of a case, in `folder`."""
    graphs, outputs = quantized(case, target, threads)
    return build_program(graphs.kernels, outputs, case.name, target, folder)


def timed_calls(source: str) -> str:
    """The C of <model>_run with mark(i, start) behind call i: it takes the time and returns the new start.

    Of several threads it is the calling one whose time is taken.
    """
    numbered = re.sub(
        r"    if \(.*\) return (\d+);", lambda m: f"{m[0]} start = mark({int(m[1]) - 1}, start);", source
    )
    shared = re.sub(
        r"    if \(pool_mine.* failed = (\d+);",
        lambda m: f"{m[0]} if (at.thread == 0) start = mark({int(m[1]) - 1}, start);",
        numbered,
    )
    return shared.replace("    (void)arena, (void)weights;", "    int64_t start = now();")


class TimedProgram:
    """A static program that waits for samples and tells how long one takes."""

    def __init__(self, program: Program, repeat: int, threads: int = 1, *, by_clock: bool = False):
        self.field = 0 if by_clock else 1  # of the two times that the program writes
        self.inputs, self.outputs = program.inputs, program.outputs
        command = [str(program.program.resolve()), "--repeat", str(repeat), "--threads", str(threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)

    def seconds(self, sample: Mapping[str, np.ndarray]) -> float:
        """Mean time of one inference on `sample`."""
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for tensor in self.inputs:
            process.stdin.write(np.ascontiguousarray(sample[tensor.name], tensor.dtype).tobytes())
        process.stdin.flush()
        process.stdout.read(sum(t.nbytes for t in self.outputs))
        return int(process.stderr.readline().split()[self.field]) * 1e-9

    @classmethod
    def once(cls, program: Program, sample: Mapping[str, np.ndarray]) -> float:
        """Seconds of one inference, roughly."""
        timed = cls(program, 5)
        seconds = timed.seconds(sample)
        timed.close()
        return seconds

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
