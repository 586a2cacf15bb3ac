"""A small float graph for every operator that has an integer form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import tvm
from relax_graphs import Emit, const, graph, nn, op, stats_of
from tvm import relax

from hwptq.passes import FoldBatchNorm, FuseConvRelu, InsertQDQ
from hwptq.targets import load_target

IMAGE = (1, 6, 7, 9)


@dataclass(frozen=True)
class Case:
    """`steps`: how many steps of the output's scale integer and float arithmetic may lie apart."""

    build: Callable[..., Any]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"x": IMAGE})
    steps: int = 1


def _conv(*shape: int, **attributes: Any) -> Case:
    def build(emit: Emit, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(*shape), **attributes), "layer")
        return emit(nn.relu(emit(op.add(y, const(1, shape[0], 1, 1, seed=1)))))

    return Case(build)


def _after_pool(function: Callable[..., Any], steps: int = 1) -> Case:
    """`function` of a quantized tensor that is exactly the input's: pooled by windows of one pixel."""
    return Case(
        lambda emit, x: emit(function(emit(nn.max_pool2d(x, (1, 1)), "pooled")), "layer"), steps=steps
    )


def _of_tokens(function: Callable[..., Any], steps: int = 1) -> Case:
    """The same of 7 tokens of 9 channels."""

    def build(emit: Emit, x: Any) -> Any:
        tokens = emit(op.reshape(emit(nn.max_pool2d(x, (1, 1)), "pooled"), (1, 7, 9)), "tokens")
        return emit(function(tokens), "layer")

    return Case(build, {"x": (1, 1, 7, 9)}, steps)


def _of_two(function: Callable[..., Any], a: tuple[int, ...], b: tuple[int, ...]) -> Case:
    return Case(lambda emit, a, b: emit(function(a, b), "layer"), {"a": a, "b": b})


def _dense(emit: Emit, x: Any) -> Any:
    return emit(op.add(emit(op.matmul(x, const(11, 5)), "layer"), const(5, seed=1)))


def _concat(emit: Emit, x: Any) -> Any:
    a = emit(nn.max_pool2d(x, (1, 1)), "pooled")
    return emit(op.concat([a, emit(op.multiply(a, relax.const(3.0)), "tripled")], axis=1), "layer")


def resize(x: Any, size: tuple[int, int], coordinates: str, rounding: str, method: str = "") -> Any:
    """A resize2d, to the nearest pixel unless another method is given."""
    return op.image.resize2d(
        x, size, method=method or "nearest_neighbor", coordinate_transformation_mode=coordinates,
        rounding_method=rounding,
    )  # fmt: skip


def shuffled(x: Any, parts: tuple[int, int, int], axes: list[int]) -> Any:
    """DepthToSpace of an image whose channels are split in `parts`; `axes` order N, O, H, SH, W, SW."""
    n, _, h, w = IMAGE
    turned = op.permute_dims(op.reshape(x, (n, *parts, h, w)), axes)
    sizes = (n, *parts, h, w)
    _, channels, rows, sh, columns, sw = (sizes[a] for a in axes)
    return op.reshape(turned, (n, channels, rows * sh, columns * sw))


CASES = {
    "conv": _conv(5, 6, 3, 3, padding=1),
    "conv with strides and asymmetric pads": _conv(5, 6, 2, 3, strides=(2, 3), padding=(1, 0, 0, 2)),
    "dilated conv": _conv(5, 6, 2, 3, dilation=(2, 1), padding=1),
    "grouped conv": _conv(4, 3, 3, 3, groups=2),
    "depthwise conv": _conv(6, 1, 3, 3, groups=6, padding=1, strides=2),
    "depthwise conv, two filters a channel": _conv(12, 1, 3, 3, groups=6),
    "dense": Case(_dense, {"x": (3, 11)}),
    "matmul": _of_two(op.matmul, (2, 3, 5), (2, 5, 4)),
    "matmul, broadcast": _of_two(op.matmul, (2, 1, 3, 5), (4, 5, 2)),
    "add": _of_two(op.add, IMAGE, IMAGE),
    "add, broadcast": _of_two(op.add, (1, 6, 7, 9), (1, 6, 1, 1)),
    "add and relu": _of_two(lambda a, b: nn.relu(op.add(a, b)), (3, 4), (3, 4)),
    "subtract": _of_two(op.subtract, (3, 4), (3, 4)),
    "multiply": _of_two(op.multiply, IMAGE, (1, 6, 1, 1)),
    "add a constant tensor": _after_pool(lambda x: op.add(x, const(1, 6, 1, 1))),
    "max pool": _after_pool(lambda x: nn.max_pool2d(x, (3, 2), (2, 2), (1, 0, 1, 1)), 0),
    "max pool, ceil mode": _after_pool(lambda x: nn.max_pool2d(x, (2, 2), (2, 2), ceil_mode=True), 0),
    "max pool, dilated": _after_pool(lambda x: nn.max_pool2d(x, (2, 2), dilation=(2, 3)), 0),
    "average pool": _after_pool(lambda x: nn.avg_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1))),
    "average pool with padding": _after_pool(
        lambda x: nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1), count_include_pad=True)
    ),
    "average pool, ceil mode": _after_pool(lambda x: nn.avg_pool2d(x, (2, 2), (2, 2), ceil_mode=True)),
    "global average pool": _after_pool(lambda x: nn.adaptive_avg_pool2d(x, (1, 1))),
    "adaptive average pool": _after_pool(lambda x: nn.adaptive_avg_pool2d(x, (7, 3))),
    "mean": _after_pool(lambda x: op.mean(x, axis=[2, 3])),
    "mean of tokens": _of_tokens(lambda x: op.mean(x, axis=[1])),
    "mean of tokens, channels first": _of_tokens(lambda x: op.mean(x, axis=[2], keepdims=True)),
    "mean of pixels, channels last": _after_pool(lambda x: op.mean(x, axis=[1, 2], keepdims=True)),
    "max of tokens": _of_tokens(lambda x: op.max(x, axis=[1]), 0),
    "max of pixels": _after_pool(lambda x: op.max(x, axis=[2, 3]), 0),
    "take": _of_tokens(lambda x: op.take(x, relax.const(np.array([5, 0, 5])), axis=1, mode="clip"), 0),
    "gather_nd": _of_tokens(lambda x: op.gather_nd(x, relax.const(np.array([[0, 6], [0, 2]]), "int64")), 0),
    "gather_elements": _of_tokens(
        lambda x: op.gather_elements(x, relax.const(np.full((1, 1, 9), 3), "int64"), axis=1), 0
    ),
    "concat": Case(_concat),
    "resize": _after_pool(lambda x: resize(x, (14, 18), "asymmetric", "floor"), 0),
    "resize by fractions": _after_pool(lambda x: resize(x, (11, 5), "half_pixel", "round_prefer_ceil"), 0),
    "pad": _after_pool(lambda x: nn.pad(x, [0, 0, 1, 0, 2, 1, 0, 3], "constant", 0.5), 0),
    "slice": _after_pool(lambda x: op.strided_slice(x, [1, 3], [1, 0], [5, 9], [2, 3]), 0),
    "slice without strides": _after_pool(lambda x: op.strided_slice(x, [1], [1], [3]), 0),
    "reshape": _after_pool(lambda x: op.reshape(x, (2, 27, 7)), 0),
    "flatten": _after_pool(lambda x: op.flatten(x), 0),
    "pixel shuffle": _after_pool(lambda x: shuffled(x, (2, 3, 1), [0, 3, 4, 1, 5, 2]), 0),
    "pixel shuffle, phases last": _after_pool(lambda x: shuffled(x, (1, 3, 2), [0, 1, 4, 2, 5, 3]), 0),
    "transpose": _after_pool(lambda x: op.permute_dims(x, [3, 0, 2, 1]), 0),
    "transpose to NHWC": _after_pool(lambda x: op.permute_dims(x, [0, 2, 3, 1]), 0),
    "sigmoid": _after_pool(op.sigmoid, 0),
    "gelu": _after_pool(nn.gelu, 0),
    "leaky relu": _after_pool(lambda x: nn.leakyrelu(x, 0.1), 0),
    "hard swish": _after_pool(lambda x: op.multiply(x, op.clip(op.add(x, relax.const(3.0)), 0, 6)), 0),
}  # fmt: skip


@cache
def fused(name: str) -> tvm.IRModule:
    """The float module of a case, ready for quantization."""
    case = CASES[name]
    return tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(graph(case.build, **case.shapes))


@cache
def qdq(name: str) -> tvm.IRModule:
    """Its QDQ form for a target that computes everything in integers."""
    return InsertQDQ(load_target("arm-cortex-a"), stats_of(fused(name)))(fused(name))


def extreme(mod: tvm.IRModule) -> dict[str, np.ndarray]:
    """Inputs far beyond the range of calibration, alternating in sign."""
    shapes = {str(p.name): [int(d) for d in p.ty.shape.values] for p in mod["main"].params}
    return {n: np.resize(np.float32([1e4, -1e4]), s) for n, s in shapes.items()}
