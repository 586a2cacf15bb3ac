"""Random operators with odd shapes and extreme values, and the native execution of their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from random import Random
from typing import Any

import numpy as np
import tvm

from hwptq.ir.operator import Operator
from hwptq.kernels.constant_frame import without_frame
from hwptq.kernels.epilogue import Follower
from hwptq.kernels.layer import Layer
from hwptq.kernels.select import select, selector_of
from hwptq.operators.add import Add
from hwptq.operators.clamp import Clamp
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.matmul import MatMul
from hwptq.operators.quantize import Quantize
from hwptq.targets.schema import Descriptor
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import PLAIN, Layout, Padding

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 20, 24, 31, 32, 33, 40)
EXTREME_FILLS = (-128, 127)
UNWRITTEN = 77  # what an output holds before a kernel runs


@dataclass(frozen=True)
class Case:
    """An operator with the values of its activations and constants."""

    op: Operator
    activations: tuple[np.ndarray, ...]
    constants: tuple[np.ndarray, ...]
    layouts: tuple[Layout, ...] = ()  # of the activations and of the result; none = plain ones
    tile: int = 0  # which one of those for its shape: see Schedule
    followers: tuple[Follower, ...] = ()  # their other operands are the last activations, in order

    def expected(self) -> np.ndarray:
        """The value that the reference computes."""
        own = len(self.activations) - sum(isinstance(f.op, Add) for f in self.followers)
        result = self.op.reference(*self.activations[:own], *self.constants)
        others = iter(self.activations[own:])
        for follower in self.followers:
            operands = [result, *([next(others)] if isinstance(follower.op, Add) else follower.constants)]
            result = follower.op.reference(*(operands[::-1] if follower.second else operands))
        return np.ascontiguousarray(result)

    def layer(self) -> Layer:
        """What a kernel is chosen for."""
        *types, out = self.types()
        others = iter(types[1:])
        followers = [replace(f, other=next(others)) if isinstance(f.op, Add) else f for f in self.followers]
        return Layer(self.op, tuple(types), self.constants, out, tuple(followers))

    def steps(self, target: Descriptor, threads: int = 1) -> tuple[Step, ...]:
        """The kernels selected for `target` and a number of threads."""
        return select(self.layer(), target, threads, self.tile)

    def types(self) -> list[TensorType]:
        """Of the activations and the result."""
        plain = [type_of(a) for a in (*self.activations, self.expected())]
        return [replace(t, layout=layout) for t, layout in zip_longest(plain, self.layouts, fillvalue=PLAIN)]

    def stored(self) -> list[np.ndarray]:
        """The activations as they lie in memory."""
        types = self.types()[:-1]
        return [in_layout(a, t.layout) for a, t in zip(self.activations, types, strict=True)]

    def in_order(self) -> np.ndarray:
        """The expected result as it lies in memory; what the slack holds is UNWRITTEN."""
        return in_layout(self.expected(), self.types()[-1].layout)

    def __str__(self) -> str:
        shapes = [a.shape for a in (*self.activations, *self.constants)]
        return f"{self.op} on {shapes} {self.layouts or ''} tile {self.tile} {self.followers or ''}"


class ImageCase(Case):
    """A Quantize of [N,C,H,W] that gives [N,H,W,C]."""

    def expected(self) -> np.ndarray:
        """The value that the reference computes."""
        return np.ascontiguousarray(super().expected().transpose(0, 2, 3, 1))


def image_case(random: Random, target: Descriptor) -> ImageCase:
    """A Quantize of an image of three planes, ties and values beyond int8 among them."""
    shape = random.choice((1, 2)), 3, random.randint(1, 6), random.randint(5, 40)
    scale = float(np.float32(random.choice((0.02, 0.5, 1 / 3, 7.7))))
    steps = np.random.default_rng(random.getrandbits(32)).integers(-600, 600, shape) / 2
    op = Quantize(scale, random.choice((-128, -3, 0, 127)))
    case = ImageCase(op, ((steps * scale).astype(np.float32),), ())
    return with_layouts(case, random, target)  # type: ignore[return-value]


def in_layout(array: np.ndarray, layout: Layout) -> np.ndarray:
    """An int8 array as `layout` stores it, UNWRITTEN in the slack; one in the plain layout as it is."""
    if layout == PLAIN:
        return array
    if layout.rows > 1:
        return _interleaved(array, layout)
    padding = layout.padding
    if not padding.empty:
        rows, columns = (padding.top, padding.bottom), (padding.left, padding.right)
        array = np.pad(array, ((0, 0), rows, columns, (0, 0)), constant_values=padding.value)
    offset = 128 if layout.dtype == "uint8" else 0
    values = (array.reshape(-1).astype(np.int16) + offset).astype(layout.dtype)
    return np.concatenate([values, np.full(layout.slack, UNWRITTEN, layout.dtype)])


def _interleaved(array: np.ndarray, layout: Layout) -> np.ndarray:
    rows, k = layout.rows, layout.k
    flat = array.reshape(-1, array.shape[-1])
    pixels = np.pad(flat, ((0, -len(flat) % rows), (0, 0)), mode="edge")
    full = np.pad(pixels, ((0, 0), (0, -flat.shape[1] % k)), constant_values=UNWRITTEN)
    return full.reshape(len(full) // rows, rows, -1, k).transpose(2, 0, 1, 3).reshape(-1)


def type_of(array: np.ndarray) -> TensorType:
    """Shape and dtype of an array."""
    return TensorType(array.shape, str(array.dtype))


def int8(random: Random, *shape: int) -> np.ndarray:
    """int8 values: random, all at one limit, or each at one of both limits."""
    kind = random.choice(("random", "random", "random", "constant", "limits"))
    if kind == "constant":
        return np.full(shape, random.choice(EXTREME_FILLS), np.int8)
    rng = np.random.default_rng(random.getrandbits(32))
    if kind == "limits":
        return rng.choice(np.array(EXTREME_FILLS, np.int8), shape)
    return rng.integers(-128, 128, shape).astype(np.int8)


def weights(random: Random, bits: int, *shape: int) -> np.ndarray:
    """int8 weights; those of 4 bits are 16 times an int4 value."""
    return int8(random, *shape) if bits == 8 else int8(random, *shape) >> 4 << 4


def scales(random: Random, channels: int, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bias, multiplier and shift, typical of a sum of `depth` products or at the limits."""
    rng = np.random.default_rng(random.getrandbits(32))
    if random.choice((True, False, False)):
        bias = rng.choice(np.array([-(2**29), 0, 2**29], np.int32), channels)
        multiplier = rng.choice(np.array([2**30, 2**31 - 1], np.int32), channels)
        return bias, multiplier, rng.choice(np.array([1, 2, 22, 31], np.int32), channels)
    typical = int(np.log2(5000 * np.sqrt(depth) / 64))
    bias = rng.integers(-5000, 5001, channels).astype(np.int32)
    multiplier = rng.integers(2**30, 2**31, channels).astype(np.int32)
    return bias, multiplier, rng.integers(typical - 1, typical + 3, channels).astype(np.int32)


def _output(random: Random) -> tuple[int, int, int]:
    """Zero point, lo and hi."""
    lo, hi = random.choice(((-128, 127), (-128, 127), (-5, 90), (-128, -127)))
    return random.choice((-128, -7, 0, 3, 127)), lo, hi


def conv_case(random: Random, channels_in: int, channels_out: int, groups: int = 1, largest: int = 8) -> Case:
    """A Conv2d; its image has at most about `largest` rows and columns."""
    kernel = random.choice(((1, 1), (1, 1), (3, 3), (3, 3), (2, 3), (1, 4), (5, 1), (1, 9)))
    strides = random.choice(((1, 1), (1, 1), (2, 2), (1, 2), (3, 1)))
    dilation = random.choice(((1, 1), (1, 1), (2, 2), (1, 3)))
    padding = random.choice(((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0), (2, 0, 0, 3), (0, 0, 1, 1)))
    least = [max(1, dilation[i] * (kernel[i] - 1) + 1 - padding[i] - padding[i + 2]) for i in (0, 1)]
    image = [n + random.randrange(largest - 1) for n in least]
    if random.choice((True, False, False, False)):
        image[1] = least[1]
    bits = random.choice((8, 8, 4))
    zero_point = random.choice((-128, -3, 0, 127))
    op = Conv2d(strides, padding, dilation, groups, zero_point, *_output(random), weight_bits=bits)
    depth = channels_in // groups
    weight = weights(random, bits, channels_out, *kernel, depth)
    x = int8(random, random.choice((1, 1, 2)), *image, channels_in)
    return Case(op, (x,), (weight, *scales(random, channels_out, depth * kernel[0] * kernel[1])))


def pointwise_case(random: Random, pixels: int) -> Case:
    """A 1x1 Conv2d on a row of so many pixels."""
    depth, channels, bits = random.choice(CHANNELS), random.choice(CHANNELS), random.choice((8, 8, 4))
    zeros = (0, 0, 0, 0)
    op = Conv2d((1, 1), zeros, (1, 1), 1, random.choice((-128, 0)), *_output(random), weight_bits=bits)
    constants = (weights(random, bits, channels, 1, 1, depth), *scales(random, channels, depth))
    return Case(op, (int8(random, 1, 1, pixels, depth),), constants)


def framed_case(random: Random, groups: int = 1) -> Case:
    """A 1x1 Conv2d of stride 1 with padding."""
    depth, channels = groups * random.choice(CHANNELS), groups * random.choice(CHANNELS)
    padding = random.choice(((1, 1, 1, 1), (0, 1, 2, 0), (3, 0, 0, 0), (0, 0, 0, 1), (2, 2, 1, 0)))
    bits = random.choice((8, 8, 4))
    zero_point = random.choice((-128, -3, 0, 127))
    op = Conv2d((1, 1), padding, (1, 1), groups, zero_point, *_output(random), weight_bits=bits)
    constants = (
        weights(random, bits, channels, 1, 1, depth // groups),
        *scales(random, channels, depth // groups),
    )
    x = int8(random, random.choice((1, 1, 2)), random.randint(1, 6), random.randint(1, 6), depth)
    return Case(op, (x,), constants)


def dense_case(random: Random) -> Case:
    """A Dense on one or several rows."""
    rows = random.choice(((1,), (1,), (2, 3), (7,), ()))
    depth, channels = random.choice((*CHANNELS, 100, 129)), random.choice((*CHANNELS, 70))
    bits = random.choice((8, 8, 4))
    op = Dense(random.choice((-128, 0, 5)), *_output(random), weight_bits=bits)
    weight = weights(random, bits, channels, depth)
    return Case(op, (int8(random, *rows, depth),), (weight, *scales(random, channels, depth)))


def dense_float_case(random: Random) -> Case:
    """A DenseFloat: sums beyond 2^24 too, which float32 rounds."""
    case = dense_case(random)
    channels = len(case.constants[0])
    rng = np.random.default_rng(random.getrandbits(32))
    bias = rng.integers(-(2**29), 2**29, channels).astype(np.int32)
    scale = np.exp2(rng.uniform(-30, 4, channels)).astype(np.float32)
    op = DenseFloat(case.op.weight_bits)  # type: ignore[union-attr]
    return Case(op, case.activations, (case.constants[0], random.choice((bias, bias >> 16)), scale))


def depthwise_case(random: Random, largest: tuple[int, int] = (9, 33)) -> Case:
    """A depthwise Conv2d on an image as wide as some vectors, with windows of up to 6 x 5."""
    channels = random.choice((*CHANNELS, 48, 64, 70, 96, 128))
    kernel = (random.randint(1, 6), random.randint(1, 5))
    dilation, strides = ((random.randint(1, 2), random.randint(1, 2)) for _ in range(2))
    padding = (random.randint(0, 3), random.randint(0, 3), random.randint(0, 3), random.randint(0, 3))
    needs = [
        d * (k - 1) + 1 - before - after
        for d, k, before, after in zip(dilation, kernel, padding[:2], padding[2:], strict=True)
    ]
    height, width = (
        random.randint(max(1, n), max(1, n, most)) for n, most in zip(needs, largest, strict=True)
    )
    op = Conv2d(strides, padding, dilation, channels, random.choice((-128, 0, 5)), *_output(random))
    x = int8(random, random.randint(1, 2), height, width, channels)
    weight = int8(random, channels, *kernel, 1)
    return Case(op, (x,), (weight, *scales(random, channels, kernel[0] * kernel[1])))


def matmul_case(random: Random) -> Case:
    """A MatMul of two activations, with leading axes that broadcast."""
    rows, depth, columns = (random.choice((1, 2, 3, 7, 8, 16, 17, 20, 33, 40)) for _ in range(3))
    lead_a, lead_b = random.choice((((), ()), ((2,), (2,)), ((2, 3), (3,)), ((1,), (4,)), ((2, 1), (1, 3))))
    zeros = (random.choice((-128, -3, 0, 127)) for _ in range(2))
    _, multiplier, shift = scales(random, 1, depth)
    op = MatMul(*zeros, int(multiplier[0]), int(shift[0]), *_output(random))
    return Case(op, (int8(random, *lead_a, rows, depth), int8(random, *lead_b, depth, columns)), ())


def run(arrays: Sequence[np.ndarray], steps: Sequence[Step], target: Descriptor) -> np.ndarray:
    """Compile `steps` for `target` and run them on this machine; the result of the last one."""
    functions = {f"k{i}": step.func.with_attr("global_symbol", f"k{i}") for i, step in enumerate(steps)}
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):  # of arguments: they fit
        executable = tvm.compile(tvm.IRModule(functions), target=tvm.target.Target(dict(target.tvm)))
    tensor = tvm.runtime.tensor
    activations = [tensor(a) for a in arrays]
    results: list[Any] = []
    for name, step in zip(functions, steps, strict=True):
        args = [
            tensor(a) if isinstance(a, np.ndarray) else results[a] if a < 0 else activations[a]
            for a in step.args
        ]
        stored = step.out.stored
        results.append(tensor(np.full(stored.shape, UNWRITTEN, stored.dtype)))
        executable[name](*args, results[-1])
    return results[-1].numpy()


def check(case: Case, target: Descriptor, threads: int = 1) -> None:
    """Fail unless the kernels selected for `target` compute exactly what the reference does."""
    result = run(case.stored(), case.steps(target, threads), target)
    np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))


def any_layout(random: Random, tensor: TensorType) -> Layout:
    """A layout that a kernel may write."""
    border = Padding(*(random.randrange(3) for _ in range(4)), random.choice((-128, -3, 127)))
    border = border if len(tensor.shape) == 4 and not border.empty and random.random() < 0.7 else Padding()
    return Layout(border, random.choice(("int8", "uint8", "uint8", "int16")), random.choice((0, 5)))


def add_of(random: Random) -> Add:
    """An Add of tensors of one shape, of usual scales or of extreme ones."""
    zeros = [random.choice((-128, -3, 0, 127)) for _ in range(2)]
    factors = [random.choice((2**20, 700_001, -(2**19), 3)) for _ in range(2)]
    return Add(
        *zeros, *factors, random.randrange(2**30, 2**31), random.choice((17, 20, 21, 22)), *_output(random)
    )


def with_followers(case: Case, random: Random) -> Case:
    """The case with one to three operators behind its layer."""
    others, followers = [], []
    shape = case.expected().shape
    for _ in range(random.randint(1, 3)):
        if random.choice((True, True, False)):
            others.append(int8(random, *shape))
            followers.append(Follower(add_of(random), second=random.choice((True, False))))
        else:
            limits = np.sort(np.stack([int8(random, shape[-1]) for _ in range(2)]), axis=0)
            followers.append(Follower(Clamp(), tuple(limits)))
    return replace(case, activations=(*case.activations, *others), followers=tuple(followers))


def layer_case(random: Random) -> Case:
    """A Conv2d of one group, or a Dense: what takes followers."""
    if random.choice((True, False, False, False)):
        return dense_case(random)
    case = conv_case(random, random.choice(CHANNELS), random.choice(CHANNELS))
    return layer_case(random) if without_frame(case.op, case.constants) else case


def with_layouts(case: Case, random: Random, target: Descriptor) -> Case:
    """The case with an input that its kernel may take as it is, and a result in any layout it can write."""
    *types, out = case.types()
    layouts = []
    selector, layer = selector_of(target), case.layer()
    for wish in selector.wishes(layer):
        layout = wish.layout
        if layout is None:
            layout = any_layout(random, out)
        elif not wish.exact and random.random() < 0.5 and len(types[0].shape) == 4:
            border = layout.padding
            sides = [side + random.randrange(3) for side in border.sides]
            value = 0 if border.empty else border.value
            layout = Layout(Padding(*sides, value), layout.dtype, layout.slack + random.randrange(3))
        layouts.append(random.choice((PLAIN, layout, layout)))
    written = PLAIN
    pairs = Layout(rows=2, k=8)
    if selector.writes(layer, pairs) and random.random() < 0.7:
        written = pairs
    elif selector.writes(layer, Layout(slack=1)):
        written = any_layout(random, out)
    return replace(case, layouts=(*layouts, written))


def random_case(random: Random) -> Case:
    """A Conv2d, one in groups, a depthwise one, a Dense, or a DenseFloat."""
    channels = random.choice(CHANNELS)
    match random.randrange(6):
        case 5:
            groups = random.choice((2, 3, 8))
            return conv_case(
                random, groups * random.choice((2, 5, 16)), groups * random.choice((1, 4, 17)), groups
            )
        case 4:
            return dense_float_case(random)
        case 0:
            return dense_case(random)
        case 1:
            return conv_case(random, channels, channels, channels)
        case _:
            return conv_case(random, channels, random.choice(CHANNELS))
