"""Time of each kernel of a model within its inference, on this machine, one thread.

    python benchmarks/kernel_times.py --data DATA --models resnet20 [--target x86-64-vnni] [--repeat 200]

A line gives the least time of a kernel over the repetitions, its share.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import tvm
from models import NAMES, Case, load_case
from programs import quantized, timed_calls

from hwptq.backends.c_source import identifier
from hwptq.backends.memory_plan import MemoryPlan, plan_memory
from hwptq.backends.static_program import compile_parts
from hwptq.targets import Descriptor, load_target

_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "{prefix}.h"
static int64_t least[{count}];
static int64_t now(void) {{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}}
static int64_t mark(int i, int64_t start) {{
    int64_t end = now();
    if (!least[i] || end - start < least[i]) least[i] = end - start;
    return now();
}}
{run}
int main(int count, char **arguments) {{
    static uint8_t arena[{upper}_ARENA_BYTES] __attribute__((aligned({upper}_ALIGNMENT)));
    static uint8_t in[{in_bytes}] __attribute__((aligned({upper}_ALIGNMENT)));
    static uint8_t out[{out_bytes}] __attribute__((aligned({upper}_ALIGNMENT)));
    const void *inputs[1] = {{in}};
    void *outputs[1] = {{out}};
    if (fread(in, 1, sizeof in, stdin) != sizeof in) return 2;
    for (long i = atol(arguments[1]); i > 0; i--) {prefix}_run(inputs, outputs, arena);
    for (int i = 0; i < {count}; i++) printf("%lld\\n", (long long)least[i]);
    return count - 2;
}}
"""


def kernel_seconds(
    plan: MemoryPlan, case: Case, target: Descriptor, folder: Path, repeat: int
) -> list[float]:
    """The least seconds of each call of `plan`. Models of one input and one output only."""
    prefix = identifier(case.name)
    compile_parts(plan, prefix, target, folder)
    calls = (folder / "calls.c").read_text(encoding="utf-8")
    timed = timed_calls(calls)
    (tensor,), (result,) = plan.inputs, plan.outputs
    main = _MAIN.format(
        prefix=prefix, upper=prefix.upper(), count=len(plan.calls), run=timed, in_bytes=tensor.nbytes,
        out_bytes=result.nbytes,
    )  # fmt: skip
    (folder / "timed.c").write_text(main, encoding="utf-8")
    command = [*target.toolchain.compiler, *target.toolchain.link_flags, "-O2", "-o", "timed", "timed.c"]
    subprocess.run([*command, "kernels.o", "weights.o", "-lm"], cwd=folder, check=True)
    sample = np.ascontiguousarray(case.samples[0][tensor.name], tensor.dtype).tobytes()
    run = [*target.toolchain.run, str(folder / "timed"), str(repeat)]
    output = subprocess.run(run, input=sample, stdout=subprocess.PIPE, check=True).stdout
    return [int(line) * 1e-9 for line in output.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the models and their data")
    parser.add_argument("--target", default="x86-64-vnni")
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--repeat", type=int, default=200)
    options = parser.parse_args()
    target = load_target(options.target)
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory(prefix="hwptq-") as folder:
            case = load_case(name, options.data, Path(folder))
            graphs, outputs = quantized(case, target)
            with tvm.target.Target(dict(target.tvm)):
                plan = plan_memory(graphs.kernels, outputs, target.memory.alignment)
            seconds = kernel_seconds(plan, case, target, Path(folder), options.repeat)
            total = sum(seconds)
            for call, each in zip(plan.calls, seconds, strict=True):
                shapes = " ".join(
                    "x".join(str(int(n)) for n in p.shape) for p in plan.functions[call.function].params
                )
                print(f"{each * 1e6:10.2f} us {each / total:6.1%}  {call.function:34} {shapes}")
            print(f"{total * 1e6:10.2f} us  {name}", flush=True)


if __name__ == "__main__":
    main()
