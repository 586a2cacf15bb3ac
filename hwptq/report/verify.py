"""Verification: run the emitted code, compare it with the reference bit for bit, and measure its accuracy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.backends.backend import backend_of
from hwptq.backends.program import Program
from hwptq.data.dataset import Dataset, Sample
from hwptq.evaluate.hidden_tokens import HiddenTokens, hidden_tokens
from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.steps import Steps
from hwptq.executors.executor import Executor, executor_for
from hwptq.formats import format_of, holds_codes
from hwptq.ir.caches import with_caches
from hwptq.ir.dataflow import bindings, reads, rewrite
from hwptq.ir.provenance import Origin, Part, origins
from hwptq.ir.qdq import quantizes, scale_and_zero
from hwptq.operators.dense import DenseFloat
from hwptq.operators.rows import RowRescale
from hwptq.pipeline.stages import Graphs
from hwptq.progress import Progress, Ticks
from hwptq.targets import Descriptor
from hwptq.workers.workers import Here, Task, Workers, shards

from .accuracy import Score
from .coverage import float_nodes, integer_nodes
from .evidence import LAYER_SAMPLES, Evidence
from .prompt_check import check_prompt

#: The executor where the reference stands in for a chip whose sums it models bit for bit.
EMULATOR = "emulator"


def verify(
    graphs: Graphs,
    program: Program,
    target: Descriptor,
    data: Dataset,
    score: Score,
    progress: Progress,
    executor: str | None = None,
    workers: Workers | None = None,
) -> Evidence:
    """Run `program` on every sample of `data`, by the executor of that name if one is given.

    A model that is all integers must give the outputs of the reference, bit for bit. Where parts are left in
    float, whose last bits depend on the library of the device, a second build shows all integer tensors, and
    each operator must map the emitted inputs to the emitted output exactly.

    The samples are verified in shards, by `workers` if there are any. What an executor on another machine
    runs is one shard: its journal serves one stream. So are steps, and data that can't be divided.
    """
    whole = executor is not None or not data.divisible or not Steps(graphs.integer).alone
    doers = Here() if whole or workers is None else workers
    parts = shards(None if whole else data.count)
    tick = Ticks(progress.track, data.count)
    evidence = Evidence("", score)
    task = _Verification(graphs, program, target, data, score.fresh(), executor, tick)
    for shard in doers.map(task, parts):
        evidence.merge(shard)
        if doers.remote:
            tick(shard.samples)
    if program.prompt is not None:
        _verify_prompt(evidence, program, target, executor)
    return evidence


def _verify_prompt(evidence: Evidence, program: Program, target: Descriptor, executor: str | None) -> None:
    """Compare the prompt with steps, where the code can be run."""
    if program.why_none or (executor is None and backend_of(target).why_not_run()):
        return
    running = _executor(program, executor)
    try:
        if not running.prompts:
            evidence.steps_alone = running.description
        for name, expected, found in check_prompt(running, program, evidence.first_inputs(program.inputs)):
            evidence.compare(name, expected, found)
    finally:
        running.close()


@dataclass(frozen=True)
class _Verification(Task[tuple[int, "int | None"], Evidence]):
    """Evidence of parts of the data."""

    graphs: Graphs
    program: Program
    target: Descriptor
    data: Dataset
    score: Score  # of no samples
    executor: str | None
    tick: Ticks | None = None

    def bench(self) -> _Bench:
        return _Bench(self)

    def work(self, bench: _Bench, item: tuple[int, int | None]) -> Evidence:
        return bench.evidence(self.data.part(*item), item[0])

    def sent(self) -> _Verification:
        return replace(self, tick=None)

    def leave(self, bench: _Bench) -> None:
        bench.close()


class _Bench:
    """What runs the program, and what stands beside it."""

    def __init__(self, task: _Verification):
        self._task, self._stack = task, ExitStack()
        self._reason = task.program.why_none or (
            None if task.executor else backend_of(task.target).why_not_run()
        )
        self._emulated = self._reason is not None and emulates(task.target)
        self._running = None if self._reason else _executor(task.program, task.executor)
        scratch = self._stack.enter_context(TemporaryDirectory(prefix="hwptq-"))
        if self._running:
            self._stack.callback(self._running.close)
        self._tapped = None
        if not self._reason and float_nodes(task.graphs.integer):
            self._tapped = _Tapped(task.graphs, task.target, Path(scratch), task.executor)
            self._stack.callback(self._tapped.running.close)

    def close(self) -> None:
        self._stack.close()

    def evidence(self, data: Dataset, first: int) -> Evidence:
        """Of some samples; first: how many were before them."""
        task, running = self._task, self._running
        found = Evidence(self._name, task.score.fresh(), first=first)
        watch = _Watch(task.graphs, found)
        for sample, emitted in run_emitted(running, data):
            whole = watch.integer.whole(sample.inputs)
            reference_outputs = watch.outputs(sample)
            exact = watch.exact
            if emitted is not None and self._tapped is None:
                for tensor, a, b in zip(task.program.outputs, reference_outputs, emitted, strict=True):
                    found.compare(tensor.name, a, b)
            if emitted is not None and self._tapped is not None:
                self._tapped.check(whole, found)
            if self._emulated:
                emitted = reference_outputs
            names = (tensor.name for tensor in task.program.outputs)
            found.measure_outputs(names, exact, reference_outputs if emitted is None else emitted)
            outputs = {"float32": exact, "reference": reference_outputs}
            found.score.add(sample.label, outputs if emitted is None else {**outputs, "emitted": emitted})
            found.show(sample, exact, {"reference": reference_outputs, "emitted": emitted})
            found.keep(sample, reference_outputs if emitted is None else emitted)
            found.samples += 1
            if task.tick:
                task.tick()
        return found

    @property
    def _name(self) -> str:
        if self._emulated:
            return EMULATOR
        return self._running.description if self._running else f"not run: {self._reason}"


def _executor(program: Program, name: str | None) -> Executor:
    """The wished one; else a process of its own, which a fault of the code can't take this one along with."""
    return executor_for(program if name else replace(program, library=None), name)


def emulates(target: Descriptor) -> bool:
    """Whether the reference may stand in for a device that is not here: it models its sums bit for bit."""
    return any(format_of(dtype).is_float for rule in target.ops for pair in rule.pairs for dtype in pair)


def run_emitted(
    running: Executor | None, data: Dataset, progress: Progress | None = None
) -> Iterator[tuple[Sample, list[np.ndarray] | None]]:
    """Each sample with what the emitted code makes of it (None where it can't be run here)."""
    total, progress = data.count, progress or Progress()
    if running is None:
        yield from ((sample, None) for sample in progress.track(data, total))
        return
    waiting: deque[Sample] = deque()

    def feed() -> Iterator[dict[str, np.ndarray]]:
        for sample in data:
            waiting.append(sample)
            yield sample.inputs

    for arrays in progress.track(running.run_stream(feed()), total):
        yield waiting.popleft(), arrays


#: Operators whose float32 results are those of layers.
_GIVES_REAL = (DenseFloat, RowRescale)


class _Watch:
    """Runs the float and the reference graph, and compares them layer by layer on the first samples, but for
    tokens that a mask hides: nothing keeps their noise small, and nobody reads it."""

    def __init__(self, graphs: Graphs, evidence: Evidence):
        self._module = graphs.float32
        self._hidden: HiddenTokens | None = None
        self.float32, self.integer = Steps(graphs.float32), Steps(graphs.integer)
        self.scales = _scales(graphs.qdq)
        named = origins(graphs.integer["main"])
        layers = (v for v, op, _ in integer_nodes(graphs.integer) if isinstance(op, _GIVES_REAL))
        self.real = {named[v] for v in layers if named[v].part is Part.RESULT}
        self.evidence = evidence
        self.exact: list[np.ndarray] = []

    def outputs(self, sample: Sample) -> list[np.ndarray]:
        """The reference's outputs; `exact` holds those of float32."""
        if self.evidence.position >= LAYER_SAMPLES:
            self.exact = self.float32.run(sample.inputs)
            return self.integer.run(sample.inputs)
        self._hidden = self._hidden or hidden_tokens(self._module, [sample.inputs])
        real: dict[Origin, np.ndarray] = {}
        self.exact = self.float32.run(sample.inputs, lambda _, origin, value: real.update({origin: value}))
        for result in self.scales:
            if (value := real.get(result, sample.inputs.get(result.node))) is not None:
                self.evidence.look(result.label, value)

        def compare(_: str, origin: Origin, q: np.ndarray) -> None:
            layer, result = origin.label, origin.with_part(Part.RESULT)
            exact = real.get(
                origin.with_part(Part.REAL), real.get(result)
            )  # a QDQ model may clamp by quantizing
            if origin in self.real and exact is not None:
                self._measure(layer, exact, q, sample)
            final = origin.part in (Part.CODES, Part.IMAGE)
            if final and result in self.scales and exact is not None and holds_codes(str(q.dtype)):
                scale, zero, dtype = self.scales[result]
                if dtype != str(q.dtype):  # what a product reads of an int16 tensor that was only moved
                    return
                value = (q.astype(np.float32) - zero) * scale
                value = value.transpose(0, 3, 1, 2) if origin.part is Part.IMAGE else value
                if value.shape == exact.shape:  # else a moved form of the tensor
                    self._measure(layer, exact, value, sample)

        return self.integer.run(sample.inputs, compare)

    def _measure(self, layer: str, exact: np.ndarray, value: np.ndarray, sample: Sample) -> None:
        """Compare what counts of a tensor."""
        if self._hidden:
            exact, value = (self._hidden.without("main", layer, x, sample.inputs) for x in (exact, value))
        self.evidence.measure(layer, exact, value)


def _scales(qdq: tvm.IRModule) -> dict[Origin, tuple[float, int, str]]:
    """Scale, zero point and dtype of each quantized tensor, by the origin of what it is quantized from."""
    found, named = {}, origins(qdq["main"])
    for var, value in bindings(qdq["main"]):
        if quantizes(value):
            scale, zero = scale_and_zero(value)
            assert scale is not None
            assert zero is not None
            of = float(scale.item()), int(zero.item()), str(var.ty.dtype)
            found[named[var].with_part(Part.RESULT)] = of
    return found


class _Tapped:
    """A build of the same kernels whose outputs are all tensors that integer operators read or write.

    Those that exist between kernels in their plain form, that is: others are computed from the nearest ones.
    """

    def __init__(self, graphs: Graphs, target: Descriptor, folder: Path, executor: str | None):
        self.reference = Interpreter(graphs.integer)
        self.nodes = list(integer_nodes(graphs.integer))
        self.origins = origins(self.reference.func)
        kernels = origins(graphs.kernels["main"])
        built = {kernels[var]: var for var, _ in bindings(graphs.kernels["main"])}
        tensors: dict[Origin, Any] = {}
        for var, _, args in self.nodes:
            for tensor in (var, *(a for a in args if isinstance(a, relax.Var))):
                if self.origins[tensor] in built:
                    tensors[self.origins[tensor]] = built[self.origins[tensor]]
        self.tapped = list(tensors)
        tapped = rewrite(
            graphs.kernels,
            lambda r, var, value: r.keep(value),
            result=lambda r: relax.Tuple([r.get(t) for t in tensors.values()]),
        )
        tapped["main"] = with_caches(tapped["main"], None)  # it gets them with each sample
        program = backend_of(target).build_program(
            tapped, tuple(map(str, range(len(tensors)))), "tapped", folder
        )
        self.running = executor_for(program, executor)

    def check(self, inputs: Mapping[str, np.ndarray], evidence: Evidence) -> None:
        """Every operator, or chain of them, on the inputs it had must give the output it gave."""
        arrays = self.running.run(inputs)
        emitted = dict(zip(self.tapped, arrays, strict=True))
        values = {p: inputs[str(p.name)] for p in self.reference.func.params}
        integer = {var for var, _, _ in self.nodes}
        for var, value in bindings(self.reference.func):
            origin = self.origins[var]
            exact = (_holds_codes(var) or _is_whole(var)) and all(v in values for v in reads(value))
            if var in integer or exact:
                values[var] = self.reference.evaluate(value, values)
                if origin in emitted:
                    evidence.compare(origin.label, values[var], emitted[origin])
            if origin in emitted:
                values[var] = emitted[origin]


def _is_whole(var: Any) -> bool:
    """Whether `var` holds indices or a mask, which any code computes alike."""
    return str(getattr(var.ty, "dtype", "")).startswith(("int", "bool"))


def _holds_codes(var: Any) -> bool:
    return holds_codes(str(getattr(var.ty, "dtype", "")))
