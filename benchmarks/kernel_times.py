"""Time of each kernel of a model within its inference, on this machine.

    python benchmarks/kernel_times.py --data DATA --models resnet20 [--target x86-64-vnni] [--repeat 200]
        [--threads 2]

A line gives the median time of a kernel over the repetitions and its share. With several threads it is the
time of the calling one, with what it waits for the others, after the time with one thread; then the ratio.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tvm
from models import NAMES, Case, load_case
from programs import quantized, timed_calls

from hwptq.backends.identifier import identifier
from hwptq.backends.program import Tensor
from hwptq.backends.static_c.memory_plan import MemoryPlan, plan_memory
from hwptq.backends.static_c.static_program import compile_parts
from hwptq.targets import Descriptor, load_target

_MAIN = """
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "{prefix}.h"
static int64_t times[{count}][{repeat}];
static long inference;
static int64_t now(void) {{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}}
static int64_t mark(int i, int64_t start) {{
    times[i][inference] = now() - start;
    return now();
}}
static int ascending(const void *a, const void *b) {{
    return (*(const int64_t *)a > *(const int64_t *)b) - (*(const int64_t *)a < *(const int64_t *)b);
}}
{run}
int main(int count, char **arguments) {{
    (void)arguments;
    static uint8_t arena[{upper}_ARENA_BYTES] __attribute__((aligned({upper}_ALIGNMENT)));
    const void *inputs[{inputs}];
    void *outputs[{outputs}];
    {tensors}
    {threads}
    for (; inference < {repeat}; inference++) {prefix}_run(inputs, outputs, arena);
    for (int i = 0; i < {count}; i++) {{
        qsort(times[i], {repeat}, sizeof times[i][0], ascending);
        printf("%lld\\n", (long long)times[i][{repeat} / 2]);
    }}
    return 0;
}}
"""


def build_timed(plan: MemoryPlan, prefix: str, target: Descriptor, folder: Path, repeat: int) -> None:
    """Build `folder`/timed, which prints the nanoseconds of each call."""
    compile_parts(plan, prefix, target, folder)
    calls = (folder / "calls.c").read_text(encoding="utf-8")
    place = f"static uint8_t {{name}}[{{size}}] __attribute__((aligned({prefix.upper()}_ALIGNMENT)));"
    tensors = [
        *(
            place.format(name=f"in{i}", size=t.nbytes)
            + f" inputs[{i}] = in{i}; if (fread(in{i}, 1, sizeof in{i}, stdin) != sizeof in{i}) return 2;"
            for i, t in enumerate(plan.inputs)
        ),
        *(
            place.format(name=f"out{i}", size=t.nbytes) + f" outputs[{i}] = out{i};"
            for i, t in enumerate(plan.outputs)
        ),
    ]
    main = _MAIN.format(
        prefix=prefix, upper=prefix.upper(), count=len(plan.calls), run=timed_calls(calls), repeat=repeat,
        inputs=len(plan.inputs), outputs=len(plan.outputs), tensors="\n    ".join(tensors),
        threads=f"{prefix}_threads(count > 1 ? {plan.threads} : 1);" if plan.threads > 1 else "",
    )  # fmt: skip
    (folder / "timed.c").write_text(main, encoding="utf-8")
    tools = target.toolchain
    command = [*tools.compiler, *tools.link_flags, "-O2", "-pthread", "-o", "timed", "timed.c"]
    subprocess.run([*command, "kernels.o", "weights.o", "-lm"], cwd=folder, check=True)


def kernel_seconds(
    folder: Path, case: Case, inputs: Sequence[Tensor], target: Descriptor, *, shared: bool
) -> np.ndarray:
    """The median seconds of each call, by one thread or `shared` by all; inputs: those of the program."""
    given = case.samples[0]
    sample = b"".join(np.ascontiguousarray(given[t.name], t.dtype).tobytes() for t in inputs)
    run = [*target.toolchain.run, str(folder / "timed"), *(["shared"] if shared else [])]
    output = subprocess.run(run, input=sample, stdout=subprocess.PIPE, check=True).stdout
    return np.array([int(line) * 1e-9 for line in output.split()])


def describe(plan: MemoryPlan) -> list[str]:
    """Of each call the kernel and the shapes of its tensors."""
    lines = []
    for call in plan.calls:
        shapes = ("x".join(str(int(n)) for n in p.shape) for p in plan.functions[call.symbol].params)
        lines.append(f"{call.symbol:34} {' '.join(shapes)}")
    return lines


def show(plan: MemoryPlan, times: list[np.ndarray], name: str) -> None:
    """A line for each kernel; `times` are those of one thread and perhaps of several."""

    def line(each: list[float], share: str, what: str) -> str:
        ratio = f"  {each[0] / each[-1]:5.2f} x" if len(each) > 1 else ""
        return " ".join(f"{t * 1e6:10.2f} us" for t in each) + f"{ratio} {share}  {what}"

    totals = [float(each.sum()) for each in times]
    for i, what in enumerate(describe(plan)):
        each = [float(t[i]) for t in times]
        print(line(each, f"{each[-1] / totals[-1]:6.1%}", what))
    print(line(totals, "", name), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the models and their data")
    parser.add_argument("--target", default="x86-64-vnni")
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    target = load_target(options.target)
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
            folder = Path(scratch)
            case = load_case(name, options.data, folder)
            graphs, outputs = quantized(case, target, options.threads)
            with tvm.target.Target(dict(target.tvm)):
                plan = plan_memory(graphs.kernels, outputs, target.memory.alignment)
            build_timed(plan, identifier(name), target, folder, options.repeat)
            runs = (False, True) if options.threads > 1 else (False,)
            times = [kernel_seconds(folder, case, plan.inputs, target, shared=s) for s in runs]
            show(plan, times, name)


if __name__ == "__main__":
    main()
