"""Multiply-accumulates per second of code for Hexagon under qemu-hexagon, layer by layer and of whole models.

    python benchmarks/hexagon_speed.py --data DATA [--models resnet20,mobilenetv1-075,kws] [--repeat 9]

A time is processor time of the emulator, the median of the repetitions within one run of the program. It says
how much work the emulator has, and nothing about cycles of a chip: a store of a vector, for one, takes it as
long as sixty loads. A layer's time has that of the steps that prepare its input. Fails where a bound is
missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from models import Case, load_case
from programs import quantized, timed_calls

from hwptq.backends.identifier import identifier
from hwptq.backends.static_c.memory_plan import MemoryPlan, plan_memory
from hwptq.backends.static_c.runtime import link_program
from hwptq.backends.static_c.static_program import compile_parts
from hwptq.ir.dataflow import bindings, constant, op_name, shape_of
from hwptq.ir.operator import Operator
from hwptq.ir.provenance import origins
from hwptq.operators.conv2d import Conv2d
from hwptq.pipeline.stages import Graphs
from hwptq.report.coverage import integer_macs, integer_nodes
from hwptq.targets import Descriptor, load_target

TARGET = "hexagon-v66-npu"
MODELS = ("resnet20", "mobilenetv1-075", "kws")
_MAIN = """
#include <stddef.h>
#include "{prefix}.h"
long read(int file, void *p, size_t n);
long write(int file, const void *p, size_t n);
static int64_t spent[{repeat}][{count}];
/* nanoseconds of processor time: clock_gettime64 of CLOCK_PROCESS_CPUTIME_ID */
static int64_t now(void) {{
    int64_t t[2];
    register long r6 __asm__("r6") = 403;
    register long r0 __asm__("r0") = 2;
    register long r1 __asm__("r1") = (long)t;
    __asm__ volatile("trap0(#1)" : "+r"(r0) : "r"(r6), "r"(r1) : "memory");
    return t[0] * INT64_C(1000000000) + t[1];
}}
static int64_t *row;
static int64_t mark(int i, int64_t start) {{
    row[i] = now() - start;
    return now();
}}
{run}
int main(void) {{
    static uint8_t arena[{upper}_ARENA_BYTES] __attribute__((aligned({upper}_ALIGNMENT)));
    static uint8_t in[{in_bytes}] __attribute__((aligned({upper}_ALIGNMENT)));
    static uint8_t out[{out_bytes}] __attribute__((aligned({upper}_ALIGNMENT)));
    const void *inputs[1] = {{in}};
    void *outputs[1] = {{out}};
    for (long at = 0, got; at < {in_bytes}; at += got)
        if ((got = read(0, in + at, {in_bytes} - at)) <= 0) return 2;
    for (int i = 0; i < {repeat}; i++) {{
        row = spent[i];
        if ({prefix}_run(inputs, outputs, arena)) return 3;
    }}
    return write(1, spent, sizeof spent) == sizeof spent ? 0 : 4;
}}
"""


@dataclass(frozen=True)
class Layer:
    """An integer operator of a model.

    `bits`: of its weights; `window`: rows and columns, of a dense layer the shape of the weights; `shape`: of
    the output.
    """

    name: str
    kind: str
    bits: int
    window: tuple[int, ...]
    strides: tuple[int, ...]
    shape: tuple[int, ...]
    macs: int
    seconds: float

    @property
    def rate(self) -> float:
        """Multiply-accumulates per second."""
        return self.macs / self.seconds

    def __str__(self) -> str:
        shape, window = ("x".join(map(str, n)) for n in (self.shape[1:], self.window))
        strides = f"/{max(self.strides)}" if self.strides and max(self.strides) > 1 else ""
        return f"{self.kind:16}  int{self.bits}  {window + strides:9}  {shape:12}"


def call_seconds(plan: MemoryPlan, case: Case, target: Descriptor, folder: Path, repeat: int) -> np.ndarray:
    """float64 [repeat, calls]: of each call of `plan`. Models of one input and one output only."""
    prefix = identifier(case.name)
    compile_parts(plan, prefix, target, folder)
    timed = timed_calls((folder / "calls.c").read_text(encoding="utf-8"))
    (tensor,), (result,) = plan.inputs, plan.outputs
    behind = target.memory.readable_behind
    main = _MAIN.format(
        prefix=prefix, upper=prefix.upper(), count=len(plan.calls), repeat=repeat, run=timed,
        in_bytes=tensor.nbytes, out_bytes=result.nbytes + behind,
    )  # fmt: skip
    (folder / "timed.c").write_text(main, encoding="utf-8")
    tools = target.toolchain
    link_program(target, ["timed.c", "kernels.o", "weights.o"], folder / "timed", folder)
    sample = np.ascontiguousarray(case.samples[0][tensor.name], tensor.dtype).tobytes()
    run = [*tools.run, str(folder / "timed")]
    output = subprocess.run(run, input=sample, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(output, np.int64).reshape(repeat, len(plan.calls)) * 1e-9


def layers(graphs: Graphs, plan: MemoryPlan, seconds: np.ndarray) -> list[Layer]:
    """Every integer operator with multiply-accumulates; `seconds` are those of the calls of `plan`."""
    named = origins(graphs.integer["main"])
    nodes = {named[var]: (named[var].label, var, op, args) for var, op, args in integer_nodes(graphs.integer)}
    kernels = {gv.name_hint for gv in graphs.kernels.functions}
    in_kernels = origins(graphs.kernels["main"])
    steps = iter(
        in_kernels[var] for var, value in bindings(graphs.kernels["main"]) if op_name(value) == "call_tir"
    )
    found, spent = [], 0.0
    for call, time in zip(plan.calls, seconds, strict=True):
        if call.function not in kernels:  # movement of data, by TVM
            continue
        origin = next(steps)
        spent += time
        if origin in nodes:
            found += _layer(*nodes[origin], spent)
            spent = 0.0
    return found


def _layer(label: str, var: Any, op: Operator, args: list[Any], seconds: float) -> list[Layer]:
    macs = integer_macs(op, args, var)
    if not macs:
        return []
    kind = op.rule([a for a in map(constant, args) if a is not None])
    conv = isinstance(op, Conv2d)
    bits = getattr(op, "weight_bits", 8)
    window = shape_of(args[1])[1:3] if conv else shape_of(args[1])[-2:]
    return [Layer(label, kind, bits, window, op.strides if conv else (), shape_of(var), macs, seconds)]


#: The bounds: name, which layers of a model count (None = the whole of it), multiply-accumulates per second.
Bound = tuple[str, str, Callable[[Layer], bool] | None, float]
BOUNDS: tuple[Bound, ...] = (
    (
        "3x3 convolutions of the widest stage",
        "resnet20",
        lambda n: n.window == (3, 3) and n.shape[-1] == 64,
        0.5e9,
    ),
    ("the whole model", "resnet20", None, 0.2e9),
    ("the slowest depthwise convolution", "mobilenetv1-075", lambda n: n.kind == "depthwise_conv2d", 0.1e9),
    ("the slowest depthwise convolution", "kws", lambda n: n.kind == "depthwise_conv2d", 0.1e9),
)


def measure(name: str, data: Path, repeat: int, scratch: Path) -> tuple[list[Layer], float]:
    """The layers of a model, and the seconds of an inference."""
    target, case = load_target(TARGET), load_case(name, data, scratch)
    graphs, outputs = quantized(case, target)
    with tvm.target.Target(dict(target.tvm)):
        plan = plan_memory(graphs.kernels, outputs, target.memory.alignment)
    times = call_seconds(plan, case, target, scratch, repeat)
    return layers(graphs, plan, np.median(times, axis=0)), float(np.median(times.sum(axis=1)))


def main() -> None:
    """Print a table for each model, and the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the models and their data")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    good = True
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory(prefix="hwptq-") as folder:
            found, seconds = measure(name, options.data, options.repeat, Path(folder))
        for n in found:
            print(f"{n}  {n.macs / 1e6:7.2f} M  {n.seconds * 1e3:7.2f} ms  {n.rate / 1e9:5.2f} G/s")
        macs = sum(layer.macs for layer in found)
        print(f"{name}: {macs / 1e6:.1f} M multiply-accumulates, {seconds * 1e3:.1f} ms an inference")
        for what, model, counts, bound in BOUNDS:
            if model == name:
                rates = [n.rate for n in found if counts(n)] if counts else [macs / seconds]
                good &= min(rates) >= bound
                print(f"{name}, {what}: {min(rates) / 1e9:.2f} G/s (bound {bound / 1e9:.1f})", flush=True)
    if not good:
        sys.exit("a bound is missed")


if __name__ == "__main__":
    main()
