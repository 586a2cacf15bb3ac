"""ReconstructBlocks: levels and scales of weights by group with which whole blocks give what float gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.lockstep import value_bytes
from hwptq.gradients.losses import relative_error
from hwptq.gradients.program import NotDifferentiable, Program, Substitute, Values
from hwptq.ir.dataflow import entry_functions
from hwptq.quant.group_codes import GroupedRows
from hwptq.quant.latent_rows import LatentRows
from hwptq.targets.schema import Descriptor

from .graph.blocks import Block, beside, blocks
from .graph.group_layers import Place, some_samples, with_rows
from .graph.rounded_function import RoundedFunction, own_samples
from .lower_to_integer import LowerToInteger
from .round_weights import Track

Sample = dict[str, np.ndarray]
#: Rows (tokens) that a step looks at, and those of all samples that are enough.
_BATCH, ENOUGH = 2**11, 2**15
#: How often each sample is seen.
_PASSES = 3
_FEWEST = 128  # steps, if there are so many samples
_MOST_SAMPLES = 2**10  # each takes its time, however few rows it has
_RISE = 0.05  # the part of the steps that become larger; the others become smaller
_MOST_LAYERS = 24  # of a block: more of them are a network that has no blocks


@tvm.transform.module_pass(opt_level=0, name="hwptq.ReconstructBlocks")
class ReconstructBlocks:
    """Behind RoundGroups: Adam on the levels and scales of a block at a time, in order (graph/blocks.py).

    A block reads what the rounded blocks before it give, and is to give what it gives in float: the mean over
    rows of |error|^2 / |row|^2, as BRECQ (Li et al. 2021) but with gradients through the rounding
    (quant/latent_rows.py). Blocks that no longer err less by that measure, or with operators that have no
    derivative, stay. Weights of 8 bits stay, and rows that are looked up too.

    float_module: the module that InsertDynamicQDQ was given; samples: dicts of its inputs, of which there are
    `total`, None = nobody knows; as many are taken as have `enough` rows and fit `memory` bytes. Where they
    are texts whose next tokens the model predicts, as many that it writes itself are taken besides, since few
    samples are fitted rather than the model. target: as in LowerToInteger; track: passes blocks on.
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
        new: dict[Place, GroupedRows] = {}
        for function in entry_functions(integer):
            rounded = RoundedFunction.of(self.float_module, integer, function)
            found = blocks(rounded.func, rounded.vars, rounded.trained)
            if found:
                new |= self._function(function, rounded, found)
        return with_rows(mod, new)

    def _function(
        self, function: str, rounded: RoundedFunction, found: list[Block]
    ) -> dict[Place, GroupedRows]:
        interpreter = Interpreter(self.float_module, function)
        samples = self._samples(interpreter, rounded, found)
        streams = _Streams.of(interpreter, rounded, samples, own_samples(interpreter, rounded, samples))
        new: dict[Place, GroupedRows] = {}
        for block in self.track(found, len(found)):
            try:
                program = Program.of(interpreter, block.steps, rounded.vars)
            except NotDifferentiable:
                program = None
            if program is None or len(block.layers) > _MOST_LAYERS:
                break  # what reaches the blocks behind it is not known
            substitutes = {v: rounded.substitute(v) for v, _ in block.steps if v in rounded.vars}
            rows = _reconstructed(block, program, substitutes, streams)
            new |= {(function, rounded.layers[v].label): r for v, r in rows.items()}
        return new

    def _samples(
        self, interpreter: Interpreter, rounded: RoundedFunction, found: list[Block]
    ) -> list[Sample]:
        tokens = min(layer.tokens for layer in rounded.layers.values())
        held = [*interpreter.func.params, *(var for var, _ in beside(rounded.func, rounded.vars))]
        each = sum(map(value_bytes, held)) + 4 * max(value_bytes(block.end) for block in found)
        most = max(1, min(_MOST_SAMPLES, self.memory // each // 2, -(-self.enough // tokens)))
        names = [str(p.name) for p in interpreter.func.params]
        return some_samples("ReconstructBlocks", self.samples, names, most, self.total)


@dataclass
class _Streams:
    """Of each sample: what nothing rounded touches, and the tensor between two blocks, exact and rounded.

    given: how many of them the user gave; the model wrote those behind."""

    given: int
    fixed: list[Values]
    exact: list[np.ndarray | None]
    rounded: list[np.ndarray | None]

    @classmethod
    def of(
        cls, interpreter: Interpreter, rounded: RoundedFunction, samples: list[Sample], own: list[Sample]
    ) -> _Streams:
        """Before the first block."""
        steps = beside(rounded.func, rounded.vars)
        fixed = []
        for sample in samples + own:
            values: Values = {p: sample[str(p.name)] for p in interpreter.func.params}
            for var, value in steps:
                values[var] = interpreter.evaluate(value, values)
            fixed.append(values)
        return cls(len(samples), fixed, [None] * len(fixed), [None] * len(fixed))

    def before(self, block: Block, number: int, exact: bool = False) -> Values:
        """The values that a block reads."""
        values = dict(self.fixed[number])
        if block.start is not None:
            values[block.start] = (self.exact if exact else self.rounded)[number]
        return values


def _reconstructed(
    block: Block, program: Program, substitutes: dict[Any, Substitute], streams: _Streams
) -> dict[Any, GroupedRows]:
    """New rows of a block's layers; streams go on behind it."""
    count, end = len(streams.fixed), program.key(block.end)
    for number in range(count):
        values = streams.before(block, number, exact=True)
        program.forward(values, {})
        streams.exact[number] = values[end]
    learning = [(v, s) for v, s in substitutes.items() if v in block.layers and isinstance(s, LatentRows)]
    before, kept = _results(block, program, substitutes, streams)
    _learn(block, program, substitutes, streams)
    new = {var: rows.settle() for var, rows in learning}
    after, results = _results(block, program, substitutes, streams)
    better = after < before
    streams.rounded = list(results if better else kept)
    return new if better else {}


def _results(
    block: Block, program: Program, substitutes: Mapping[Any, Substitute], streams: _Streams
) -> tuple[float, list[np.ndarray]]:
    """The loss over the samples that were given, and what the block gives for each."""
    lost, results = 0.0, []
    for number, wanted in enumerate(streams.exact):
        values = streams.before(block, number)
        program.forward(values, substitutes)
        results.append(values[program.key(block.end)])
        assert wanted is not None
        lost += relative_error(results[-1], wanted)[0] if number < streams.given else 0
    return lost, results


def _learn(block: Block, program: Program, substitutes: Mapping[Any, Substitute], streams: _Streams) -> None:
    """Steps of all layers of a block, each by a few samples."""
    rng, count, end = np.random.default_rng(0), len(streams.fixed), program.key(block.end)
    first = streams.exact[0]
    assert first is not None
    batch = max(1, min(_BATCH * first.shape[-1] // first.size, _PASSES * count // _FEWEST))
    steps = -(-_PASSES * count // batch)
    numbers = np.concatenate([rng.permutation(count) for _ in range(_PASSES + 1)])
    learning = [s for v, s in substitutes.items() if v in block.layers and isinstance(s, LatentRows)]
    for step in range(steps):
        for number in numbers[step * batch : (step + 1) * batch]:
            values = streams.before(block, int(number))
            program.forward(values, substitutes)
            wanted = streams.exact[number]
            assert wanted is not None
            gradients: Values = {end: relative_error(values[end], wanted)[1] / np.float32(batch)}
            program.backward(values, gradients, substitutes)
        share = min(1.0, (step + 1) / (_RISE * steps)) * (1 - step / steps)
        for rows in learning:
            rows.step(share, keep=step >= steps // 2)
