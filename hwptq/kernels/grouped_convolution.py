"""A convolution in groups as several convolutions of one group each, on slices of the channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from hwptq.operators.conv2d import Conv2d
from hwptq.tir.builder import TEMPLATE, Expr, Flat, loop, primfunc
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.vector_unit import VectorUnit

from .concatenate import concatenate
from .layer import Layer
from .template import Maker

#: What a kernel computes at once: input channels of one dot product, output channels of one vector.
_INPUTS, _OUTPUTS = 4, 16

#: The steps of a Conv2d of one group: (op, x, weight and the constants of its channels, out) -> steps.
Plain = Callable[[Conv2d, TensorType, Sequence[np.ndarray], TensorType], tuple[Step, ...]]


class Grouped(Maker):
    """What makes convolutions of one group, used for each bundle of groups."""

    def __init__(self, maker: Maker, unit: VectorUnit):
        self.maker, self.unit = maker, unit

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        def plain(
            op: Conv2d, x: TensorType, constants: Sequence[np.ndarray], out: TensorType
        ) -> tuple[Step, ...]:  # fmt: skip
            return self.maker.steps(Layer(op, (x,), tuple(constants), out))

        assert isinstance(layer.op, Conv2d)
        x, constants = layer.activations[0], layer.constants
        return grouped_convolution(layer.op, x, constants, layer.out, plain, self.unit)


def grouped(layer: Layer) -> bool:
    """Whether a layer is a convolution in groups that is not depthwise."""
    op = layer.op
    return isinstance(op, Conv2d) and op.grouped and op.rule(layer.constants) == Conv2d.family


def grouped_convolution(
    op: Conv2d,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    plain: Plain,
    unit: VectorUnit,
) -> tuple[Step, ...]:
    """The steps of a Conv2d with groups; `constants` are its weight, bias, multiplier and shift.

    Small groups are bundled: the weights of a bundle have blocks of their groups on the diagonal, else zeros.
    """
    weight, *channels = constants
    co, _, _, depth = weight.shape
    bundle = bundle_of(op.groups, depth, co // op.groups)
    count = op.groups // bundle
    wide, narrow = co // count, bundle * depth
    single = replace(op, groups=1)
    if count == 1:
        return plain(single, x, (diagonal(weight, bundle), *channels), out)
    part = TensorType((*out.shape[:-1], wide), out.dtype)
    steps: list[Step] = []
    results = []  # index of the step that has the channels of a bundle
    for i in range(count):
        taken = slice(i * wide, (i + 1) * wide)
        cut = _slice_channels(x, i * narrow, narrow, unit)
        parts = (diagonal(weight[taken], bundle), *(c[taken] for c in channels))
        own = plain(single, cut.out, parts, part)
        steps += [cut, *(_reading(step, j + 1) for j, step in enumerate(own))]
        results.append(len(steps) - 1)
    join = concatenate([part] * count, len(out.shape) - 1, out, unit)
    return (*steps, replace(join, args=tuple(r - len(steps) for r in results)))


def bundle_of(groups: int, inputs: int, outputs: int) -> int:
    """How many of `groups` of so many channels to compute together: the least work, then the most groups."""

    def work(bundle: int) -> int:
        dots, vectors = -(-bundle * inputs // _INPUTS), -(-bundle * outputs // _OUTPUTS)
        return groups // bundle * dots * vectors

    return min((b for b in range(1, groups + 1) if groups % b == 0), key=lambda b: (work(b), -b))


def diagonal(weight: np.ndarray, bundle: int) -> np.ndarray:
    """[O,KH,KW,I] of `bundle` groups -> [O,KH,KW,bundle * I]: each group meets its own inputs, else zeros."""
    co, *window, depth = weight.shape
    out = np.zeros((bundle, co // bundle, *window, bundle, depth), weight.dtype)
    for g, own in enumerate(np.split(weight, bundle)):
        out[g, ..., g, :] = own
    return out.reshape(co, *window, bundle * depth)


def _reading(step: Step, distance: int) -> Step:
    """The step with its operator's activation found so many steps before."""
    args = tuple(-distance if isinstance(a, int) and a == 0 else a for a in step.args)
    return replace(step, args=args)


def _slice_channels(x: TensorType, first: int, count: int, unit: VectorUnit) -> Step:
    """The step int8 x [..., C] -> [..., first : first + count]."""
    pixels, pitch = prod(x.shape[:-1]), x.shape[-1]
    out = TensorType((*x.shape[:-1], count), x.dtype)

    def emit(source: Flat, y: Flat) -> None:
        def pixel(p: Expr) -> None:
            unit.cover(
                count,
                lambda i, n, kept: y.store(p * count + i, source.load(p * pitch + first + i, n), n, kept),
            )

        loop(pixels, pixel)

    return Step(primfunc([x, out], {TEMPLATE: "slice_channels"}, emit), (0,), out, "slice_channels")
