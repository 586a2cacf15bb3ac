"""MatchOutputs: levels and scales of weights by group, and norms, with which outputs are those of float."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.lockstep import value_bytes
from hwptq.gradients.losses import divergence, relative_error
from hwptq.gradients.program import NotDifferentiable, Program, Substitute, Values
from hwptq.ir.dataflow import constant, entry_functions, op_name
from hwptq.ir.provenance import origins
from hwptq.quant.adam import Adam
from hwptq.quant.latent_rows import LatentRows, LookedUp
from hwptq.targets.schema import Descriptor

from .graph.blocks import beside, dependent
from .graph.group_layers import some_samples, with_rows
from .graph.norm_vectors import NORMS, with_norm_vectors
from .graph.rounded_function import RoundedFunction, own_samples
from .lower_to_integer import LowerToInteger
from .round_weights import Track

Sample = dict[str, np.ndarray]
#: Rows (tokens) that a step looks at, and those of all samples that are enough.
_BATCH, ENOUGH = 2**11, 2**15
_PASSES = 2  # how often each sample is seen
_FEWEST = 64  # steps, if there are so many samples
_MOST_SAMPLES = 2**10
_HELD_OUT = 16  # the samples of which one tells whether the outputs are nearer
_WORTH = 0.98  # of what held-out samples lose before: else nothing is gained
_RISE = 0.1  # the part of the steps that become larger; the others become smaller
_OF_VECTORS = 4e-3  # what an entry of a norm's vector moves at most in a step
_LEVELS = 1 / 3  # of a step of scales: what levels follow by


@tvm.transform.module_pass(opt_level=0, name="hwptq.MatchOutputs")
class MatchOutputs:
    """Behind ReconstructBlocks: Adam through the whole function, as distillation does (Hinton et al. 2015; of
    scales alone, Chen et al. 2024, EfficientQAT).

    What the outputs lose is the divergence (KL) of the likelihoods of next tokens from those of float where a
    model of texts gives these, else the mean over rows of |error|^2 / |row|^2. Steps change levels and scales
    of weights of less than 8 bits, those of a table that is the head too by what both do, and the vectors of
    norms. Where samples that were held out don't come nearer, or an operator has no derivative, all stays.

    Arguments as those of ReconstructBlocks.
    """

    def __init__(
        self, float_module: tvm.IRModule, samples: Iterable[Sample], target: Descriptor,
        total: int | None = None, enough: int = ENOUGH, memory: int = 3 * 2**29, track: Track | None = None,
    ):  # fmt: skip
        self.float_module, self.samples, self.target = float_module, samples, target
        self.total, self.enough, self.memory = total, enough, memory
        self.track = track or (lambda items, total: items)

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        integer = tvm.ir.transform.Sequential([LowerToInteger(self.target)])(mod)
        for function in entry_functions(integer):
            rounded = RoundedFunction.of(self.float_module, integer, function)
            if rounded.trained:
                mod = self._matched(mod, function, rounded)
        return mod

    def _matched(self, mod: tvm.IRModule, function: str, rounded: RoundedFunction) -> tvm.IRModule:
        interpreter = Interpreter(self.float_module, function)
        try:
            student = _Student.of(interpreter, rounded)
        except NotDifferentiable:
            return mod
        samples = self._samples(interpreter, rounded)
        own = own_samples(interpreter, rounded, samples)
        cases = [_Case.of(interpreter, rounded, sample) for sample in samples + own]
        held = cases[: len(samples) : _HELD_OUT] if len(samples) >= _HELD_OUT else cases
        learnt = [case for case in cases if case not in held] or cases
        loss = divergence if own else relative_error
        before = student.lost(held, loss)
        self._learn(student, learnt, loss)
        rows, vectors = student.settle()
        if student.lost(held, loss) > _WORTH * before:
            return mod
        return with_norm_vectors(
            with_rows(mod, {(function, label): r for label, r in rows.items()}),
            {(function, label): v for label, v in vectors.items()},
        )

    def _samples(self, interpreter: Interpreter, rounded: RoundedFunction) -> list[Sample]:
        tokens = min(layer.tokens for layer in rounded.layers.values())
        held = [*interpreter.func.params, *(var for var, _ in beside(rounded.func, rounded.vars))]
        each = sum(map(value_bytes, held)) + sum(map(value_bytes, _outputs(rounded.func)))
        most = max(1, min(_MOST_SAMPLES, self.memory // each // 2, -(-self.enough // tokens)))
        names = [str(p.name) for p in interpreter.func.params]
        return some_samples("MatchOutputs", self.samples, names, most, self.total)

    def _learn(self, student: _Student, cases: list[_Case], loss: Any) -> None:
        """Steps by a few samples each."""
        tokens = min(layer.tokens for layer in student.rounded.layers.values())
        batch = max(1, min(_BATCH // tokens, _PASSES * len(cases) // _FEWEST))
        steps = -(-_PASSES * len(cases) // batch)
        rng = np.random.default_rng(0)
        numbers = np.concatenate([rng.permutation(len(cases)) for _ in range(_PASSES + 1)])
        for step in self.track(range(steps), steps):
            for number in numbers[step * batch : (step + 1) * batch]:
                student.see(cases[number], loss, batch)
            share = min(1.0, (step + 1) / (_RISE * steps)) * (1 - step / steps)
            student.step(share, keep=step >= steps // 2)


def _outputs(func: Any) -> list[Any]:
    body = func.body.body
    return list(body.fields) if isinstance(body, relax.Tuple) else [body]


@dataclass(frozen=True, eq=False)
class _Case:
    """A sample: what nothing rounded touches, and the outputs in float."""

    fixed: Values
    wanted: list[np.ndarray]

    @classmethod
    def of(cls, interpreter: Interpreter, rounded: RoundedFunction, sample: Sample) -> _Case:
        fixed: Values = {p: sample[str(p.name)] for p in interpreter.func.params}
        for var, value in beside(rounded.func, rounded.vars):
            fixed[var] = interpreter.evaluate(value, fixed)
        return cls(fixed, interpreter.run(sample))


@dataclass
class _Student:
    """A float function with rounded weights that learn.

    latent: those of layers; vectors: of norms, by the var that stands for one, with the norm's label.
    """

    rounded: RoundedFunction
    program: Program
    substitutes: Mapping[Any, Substitute]
    latent: Mapping[Any, LatentRows]
    vectors: Mapping[Any, tuple[str, int, Adam]]
    gradients: Values = field(default_factory=dict)

    @classmethod
    def of(cls, interpreter: Interpreter, rounded: RoundedFunction) -> _Student:
        """Raises NotDifferentiable."""
        steps, vectors = _with_vectors(dependent(rounded.func, rounded.vars), origins(rounded.func))
        program = Program.of(interpreter, steps, rounded.vars)
        substitutes = {var: rounded.substitute(var) for var in rounded.vars}
        for table, layer in rounded.tied.items():
            rows = substitutes[layer]
            assert isinstance(rows, LatentRows)
            substitutes[table] = LookedUp(rows)
        learning = {*rounded.trained, *rounded.tied.values()}
        latent = {v: s for v, s in substitutes.items() if v in learning and isinstance(s, LatentRows)}
        return cls(rounded, program, substitutes, latent, vectors)

    def forward(self, case: _Case) -> tuple[Values, list[Any]]:
        """All values, and the keys of the outputs."""
        values = {**case.fixed, **{var: adam.value for var, (_, _, adam) in self.vectors.items()}}
        self.program.forward(values, self.substitutes)
        return values, [self.program.key(var) for var in _outputs(self.rounded.func)]

    def lost(self, cases: list[_Case], loss: Any) -> float:
        """The mean loss of some samples."""
        total = 0.0
        for case in cases:
            values, keys = self.forward(case)
            total += sum(loss(values[k], w)[0] for k, w in zip(keys, case.wanted, strict=True))
        return total / len(cases)

    def see(self, case: _Case, loss: Any, batch: int) -> None:
        """Keep the gradients of one of `batch` samples."""
        values, keys = self.forward(case)
        gradients: Values = {}
        for key, wanted in zip(keys, case.wanted, strict=True):
            found = loss(values[key], wanted)[1] / np.float32(batch)
            gradients[key] = gradients[key] + found if key in gradients else found
        self.program.backward(values, gradients, self.substitutes, tuple(self.vectors))
        for var in self.vectors:
            if var in gradients:
                known = self.gradients.get(var)
                self.gradients[var] = gradients[var] if known is None else known + gradients[var]

    def step(self, share: float, keep: bool) -> None:
        """A step by all that was kept."""
        for rows in self.latent.values():
            rows.step(share, keep, _LEVELS)
        for var, (_, _, adam) in self.vectors.items():
            if var in self.gradients:
                adam.step(self.gradients[var], share, keep)
        self.gradients.clear()

    def settle(self) -> tuple[dict[str, Any], dict[str, dict[int, np.ndarray]]]:
        """The rows of nodes, and the vectors of norms by their place among the operands."""
        by_var = {var: latent.settle() for var, latent in self.latent.items()}
        rows = {self.rounded.layers[var].label: found for var, found in by_var.items()}
        named = origins(self.rounded.func)
        rows |= {named[table].label: by_var[layer] for table, layer in self.rounded.tied.items()}
        vectors: dict[str, dict[int, np.ndarray]] = {}
        for label, place, adam in self.vectors.values():
            adam.settle()
            vectors.setdefault(label, {})[place] = adam.value
        return rows, vectors


def _with_vectors(
    steps: list[tuple[Any, Any]], named: Mapping[Any, Any]
) -> tuple[list[tuple[Any, Any]], dict[Any, tuple[str, int, Adam]]]:
    """Steps that read vars in the place of the vectors of norms; and these vars."""
    found: dict[Any, tuple[str, int, Adam]] = {}
    out = []
    for var, value in steps:
        if op_name(value) in NORMS:
            args = list(value.args)
            for place in range(1, len(args)):
                vector = constant(args[place])
                if vector is not None:
                    args[place] = relax.Var("vector", args[place].ty)
                    found[args[place]] = named[var].label, place, Adam(vector.copy(), _OF_VECTORS)
            value = relax.Call(value.op, args, value.attrs, value.ty_args, value.span)
        out.append((var, value))
    return out, found
