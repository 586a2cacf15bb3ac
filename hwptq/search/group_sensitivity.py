"""What weights by group lose at each number of bits: measured at the outputs, one weight at a time.

A weight has the levels and scales that the recipe gives it: by GPTQ few bits gain far more than many (docs-lm
has a perplexity of 49 with all layers in two bits to nearest and 24 by GPTQ, 10.2 and 10.0 in four), so that
the nearest levels would make few bits seem too dear. All else stays in float. Measured so, losses of docs-lm
add up: the sum over its weights is within a tenth of what all of them lose together, at four, three and two
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.data.dataset import Sample
from hwptq.evaluate.downstream import Network
from hwptq.evaluate.lockstep import Lockstep
from hwptq.evaluate.own_texts import predicts_next
from hwptq.formats import INT8, Format
from hwptq.ir.dataflow import bindings
from hwptq.passes.graph.group_layers import row_values
from hwptq.passes.graph.group_plan import Grouping
from hwptq.passes.graph.stored_weights import StoredWeight, stored_weights
from hwptq.quant.group_codes import GroupedRows
from hwptq.quant.group_rounding import fitted_rows, nearest_rows
from hwptq.report.accuracy import names_a_class

from .disturbance import Probing, divergence, noise

Inputs = Mapping[str, np.ndarray]
#: Of each weight, by its label, its rows in some formats.
Candidates = Mapping[str, Sequence[GroupedRows]]


def rounded_candidates(
    float32: tvm.IRModule, function: str, wanted: Mapping[str, Sequence[Grouping]], samples: Sequence[Inputs]
) -> Iterator[tuple[str, list[GroupedRows]]]:
    """The rows of weights, by label in the order of the function, in each of the formats that are `wanted`.

    samples: what they are fitted to; if none the nearest levels, as those of tables and of 8 bits are.
    """
    exact = Lockstep(float32, [dict(s) for s in samples], function)
    for weight in stored_weights(float32, function):
        if weight.label not in wanted:
            continue
        gram = None
        if samples and not weight.is_looked_up:
            exact.run_to(weight.readers[0][0])
            gram = _moments(weight, exact, float32[function])
        yield weight.label, [_rounded(weight.rows, *how, gram) for how in wanted[weight.label]]


def _moments(weight: StoredWeight, exact: Lockstep, func: Any) -> np.ndarray:
    """Second moments [K, K] of what multiplies a weight where it is read first."""
    source = dict(bindings(func))[weight.readers[0][0]].args[0]
    depth, total, count = weight.rows.shape[1], 0.0, 0
    for env in exact.values:
        x = env[source].reshape(-1, depth)
        total, count = total + x.T @ x, count + len(x)
    return np.asarray(total / count)


def _rounded(rows: np.ndarray, weight: Format, size: int, gram: np.ndarray | None) -> GroupedRows:
    if gram is None or weight.bits >= INT8.bits:
        return nearest_rows(rows, weight, size)
    return fitted_rows(rows.astype(np.float64), gram, weight, size)


@dataclass(frozen=True)
class GroupLosses(Probing):
    """What each candidate does to one sample: [candidates, 2], the noise at the outputs relative to them, and
    the divergence of the likelihoods of the next token, or of the classes, in nats, else NaN."""

    float32: tvm.IRModule
    function: str
    candidates: Candidates

    def bench(self) -> _Bench:
        return _Bench(self.float32, self.function, self.candidates)

    def work(self, bench: _Bench, item: Sample) -> np.ndarray:
        return bench.losses(item, self.tick or (lambda: None))

    @property
    def count(self) -> int:
        return sum(map(len, self.candidates.values()))


class _Bench:
    """One network of which a weight at a time is another; for one thread."""

    def __init__(self, float32: tvm.IRModule, function: str, candidates: Candidates):
        self.network = Network(float32, function)
        found = [w for w in stored_weights(float32, function) if w.label in candidates]
        self.probes = [(_Probe(self.network, weight), candidates[weight.label]) for weight in found]
        self._predicts: bool | None = None

    def losses(self, sample: Sample, tick: Callable[[], None]) -> np.ndarray:
        """[candidates, 2], in the order of the weights."""
        clean = self.network.values(sample.inputs)
        exact = self.network.outputs(clean)
        likely = self._is_likelihood(sample, exact[0])
        rows = []
        for probe, candidates in self.probes:
            for each in candidates:
                outputs = self.network.outputs_where(clean, probe.calls, probe.given(row_values(each)))
                lost = divergence(exact[0], outputs[0]) if likely else float("nan")
                rows.append((noise(exact, outputs), lost))
                tick()
        return np.array(rows).reshape(-1, 2)

    def _is_likelihood(self, sample: Sample, output: np.ndarray) -> bool:
        """Whether the first output tells classes, or next tokens, apart."""
        if names_a_class(sample.label, output.shape):
            return True
        if self._predicts is None:
            names = list(sample.inputs)
            alone = len(names) == 1 and sample.inputs[names[0]].dtype.kind == "i"
            self._predicts = alone and predicts_next(self.network.interpreter, sample.inputs, names[0])
        return self._predicts


class _Probe:
    """The nodes that read a weight, with vars in the place of it."""

    def __init__(self, network: Network, weight: StoredWeight):
        self._straight = relax.Var("rows", relax.TensorType(weight.rows.shape, "float32"))
        self._turned = relax.Var("weight", relax.TensorType(weight.rows.shape[::-1], "float32"))
        self.calls = {
            var: self._reading(network.expressions[var], read.is_table) for var, read in weight.readers
        }

    def _reading(self, call: Any, is_table: bool) -> Any:
        first, *others = call.args
        args = [self._straight, *others] if is_table else [first, self._turned, *others[1:]]
        return relax.Call(call.op, args, call.attrs, call.ty_args, call.span)

    def given(self, rows: np.ndarray) -> dict[Any, np.ndarray]:
        """What the vars are if the weight is `rows`."""
        return {self._straight: rows, self._turned: np.ascontiguousarray(rows.T)}
