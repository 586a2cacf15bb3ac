"""Verification: run the emitted code, compare it with the reference bit for bit, and measure its accuracy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.backends.backend import backend_of
from hwptq.backends.program import Program
from hwptq.data.dataset import Dataset, Sample
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
from hwptq.progress import Progress
from hwptq.quant.histogram import Histogram
from hwptq.targets import Descriptor

from .accuracy import Score, Sqnr
from .coverage import float_nodes, integer_nodes
from .directions import Directions
from .examples import EXAMPLES, Example
from .golden import output_keys
from .histograms import SAMPLES, histogram_of

#: The executor where the reference stands in for a chip whose sums it models bit for bit.
EMULATOR = "emulator"
#: Samples on which the noise of each layer is measured, and which are kept as golden ones.
LAYER_SAMPLES = 32


@dataclass
class Evidence:
    """What running the emitted code has shown."""

    executor: str
    score: Score
    samples: int = 0
    values: int = 0
    mismatches: int = 0
    first_mismatch: str | None = None  # the layer or output that differs first
    layers: dict[str, Sqnr] = field(default_factory=dict)
    kept: dict[str, Directions] = field(default_factory=dict)  # of layers, in the order of the graph
    kept_outputs: dict[str, Directions] = field(default_factory=dict)
    golden: dict[str, list[np.ndarray]] = field(default_factory=dict)
    seen: dict[str, Histogram] = field(default_factory=dict)  # what float32 activations held, by label
    examples: list[Example] = field(default_factory=list)

    def compare(self, name: str, expected: np.ndarray, found: np.ndarray) -> None:
        """Count the values that differ in their bits."""
        self.values += expected.size
        differ = int(np.count_nonzero(_bits(expected) != _bits(found)))
        self.mismatches += differ
        if differ and self.first_mismatch is None:
            self.first_mismatch = name

    def measure(self, layer: str, exact: np.ndarray, found: np.ndarray) -> None:
        """Compare what a layer gives with what it gives in float32."""
        self.layers.setdefault(layer, Sqnr()).add(exact, found)
        self.kept.setdefault(layer, Directions()).add(exact, found)

    def measure_outputs(
        self, names: Iterable[str], exact: Sequence[np.ndarray], found: Sequence[np.ndarray]
    ) -> None:
        """The same of the outputs of one of the first samples."""
        if self.samples < LAYER_SAMPLES:
            for name, x, y in zip(names, exact, found, strict=True):
                if x.dtype.kind == "f" and x.shape == y.shape and x.size:
                    self.kept_outputs.setdefault(name, Directions()).add(x, y)

    def look(self, label: str, exact: np.ndarray) -> None:
        """Count what a float32 activation holds in one of the first samples."""
        if self.samples < SAMPLES and exact.size and exact.dtype == np.float32:
            held = histogram_of(exact)
            self.seen[label] = self.seen[label].merge(held) if label in self.seen else held

    def show(
        self, sample: Sample, exact: list[np.ndarray], others: dict[str, list[np.ndarray] | None]
    ) -> None:  # fmt: skip
        """Keep one of the first samples, and the last of the other outputs that there are, to be seen."""
        if len(self.examples) < EXAMPLES:
            kind, found = [(k, o) for k, o in others.items() if o is not None][-1]
            outputs = {"float32": exact, kind: found}
            self.examples.append(Example(sample.inputs, sample.label, outputs))

    def keep(self, sample: Sample, outputs: list[np.ndarray]) -> None:
        """Put one of the first samples and its outputs among the golden ones."""
        if self.samples < LAYER_SAMPLES:
            keys = output_keys(sample.inputs, len(outputs))
            for name, array in {**sample.inputs, **dict(zip(keys, outputs, strict=True))}.items():
                self.golden.setdefault(name, []).append(array)


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def verify(
    graphs: Graphs,
    program: Program,
    target: Descriptor,
    data: Dataset,
    score: Score,
    progress: Progress,
    executor: str | None = None,
) -> Evidence:
    """Run `program` on every sample of `data`, by the executor of that name if one is given.

    A model that is all integers must give the outputs of the reference, bit for bit. Where parts are left in
    float, whose last bits depend on the library of the device, a second build shows all integer tensors, and
    each operator must map the emitted inputs to the emitted output exactly.
    """
    reason = program.why_none or (None if executor else backend_of(target).why_not_run())
    emulated = reason is not None and emulates(target)
    running = None if reason else _executor(program, executor)
    evidence = Evidence(
        EMULATOR if emulated else running.description if running else f"not run: {reason}", score
    )
    watch = _Watch(graphs, evidence)
    with ExitStack() as stack:
        scratch = stack.enter_context(TemporaryDirectory(prefix="hwptq-"))
        if running:
            stack.callback(running.close)
        tapped = None
        if not reason and float_nodes(graphs.integer):
            tapped = _Tapped(graphs, target, Path(scratch), executor)
            stack.callback(tapped.running.close)
        for sample, emitted in run_emitted(running, data, progress):
            whole = watch.integer.whole(sample.inputs)
            reference_outputs = watch.outputs(sample)
            exact = watch.exact
            if emitted is not None and tapped is None:
                for tensor, a, b in zip(program.outputs, reference_outputs, emitted, strict=True):
                    evidence.compare(tensor.name, a, b)
            if emitted is not None and tapped is not None:
                tapped.check(whole, evidence)
            if emulated:
                emitted = reference_outputs
            names = (tensor.name for tensor in program.outputs)
            evidence.measure_outputs(names, exact, reference_outputs if emitted is None else emitted)
            outputs = {"float32": exact, "reference": reference_outputs}
            score.add(sample.label, outputs if emitted is None else {**outputs, "emitted": emitted})
            evidence.show(sample, exact, {"reference": reference_outputs, "emitted": emitted})
            evidence.keep(sample, reference_outputs if emitted is None else emitted)
            evidence.samples += 1
    return evidence


def _executor(program: Program, name: str | None) -> Executor:
    """The wished one; else a process of its own, which a fault of the code can't take this one along with."""
    return executor_for(program if name else replace(program, library=None), name)


def emulates(target: Descriptor) -> bool:
    """Whether the reference may stand in for a device that is not here: it models its sums bit for bit."""
    return any(format_of(dtype).is_float for rule in target.ops for pair in rule.pairs for dtype in pair)


def run_emitted(
    running: Executor | None, data: Dataset, progress: Progress
) -> Iterator[tuple[Sample, list[np.ndarray] | None]]:
    """Each sample with what the emitted code makes of it (None where it can't be run here)."""
    total = data.count
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
    """Runs the float and the reference graph, and compares them layer by layer on the first samples."""

    def __init__(self, graphs: Graphs, evidence: Evidence):
        self.float32, self.integer = Steps(graphs.float32), Steps(graphs.integer)
        self.scales = _scales(graphs.qdq)
        named = origins(graphs.integer["main"])
        layers = (v for v, op, _ in integer_nodes(graphs.integer) if isinstance(op, _GIVES_REAL))
        self.real = {named[v] for v in layers if named[v].part is Part.RESULT}
        self.evidence = evidence
        self.exact: list[np.ndarray] = []

    def outputs(self, sample: Sample) -> list[np.ndarray]:
        """The reference's outputs; `exact` holds those of float32."""
        if self.evidence.samples >= LAYER_SAMPLES:
            self.exact = self.float32.run(sample.inputs)
            return self.integer.run(sample.inputs)
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
                self.evidence.measure(layer, exact, q)
            final = origin.part in (Part.CODES, Part.IMAGE)
            if final and result in self.scales and exact is not None and holds_codes(str(q.dtype)):
                scale, zero = self.scales[result]
                value = (q.astype(np.float32) - zero) * scale
                value = value.transpose(0, 3, 1, 2) if origin.part is Part.IMAGE else value
                if value.shape == exact.shape:  # else a moved form of the tensor
                    self.evidence.measure(layer, exact, value)

        return self.integer.run(sample.inputs, compare)


def _scales(qdq: tvm.IRModule) -> dict[Origin, tuple[float, int]]:
    """Scale and zero point of each quantized tensor, by the origin of what it is quantized from."""
    found, named = {}, origins(qdq["main"])
    for var, value in bindings(qdq["main"]):
        if quantizes(value):
            scale, zero = scale_and_zero(value)
            assert scale is not None
            assert zero is not None
            found[named[var].with_part(Part.RESULT)] = (float(scale.item()), int(zero.item()))
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
            exact = _holds_codes(var) or (_is_whole(var) and all(v in values for v in reads(value)))
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
