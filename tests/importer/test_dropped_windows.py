"""Poolings with ceil_mode: a window that begins behind the image is none, whatever ONNX infers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_models import model, node, normal

from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_proto


def naive(
    x: np.ndarray, op: str, kernel: int, stride: int, pads: tuple[int, int], padding: bool
) -> np.ndarray:
    """Window by window of an image [1, C, N, N], as the standard has it."""
    size, (before, after) = x.shape[2], pads
    starts = [s - before for s in range(0, size + before + after, stride) if s < size + before]
    ceiled = -(-(size + before + after - kernel) // stride) + 1
    out = np.zeros((1, x.shape[1], *[min(len(starts), ceiled)] * 2), np.float32)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            sides = [(max(starts[k], 0), min(starts[k] + kernel, size)) for k in (i, j)]
            window = x[:, :, slice(*sides[0]), slice(*sides[1])]
            whole = [min(starts[k] + kernel, size + after) - starts[k] for k in (i, j)]
            count = np.prod(whole) if padding else np.prod([b - a for a, b in sides])
            out[:, :, i, j] = window.max((2, 3)) if op == "MaxPool" else window.sum((2, 3)) / count
    return out


@settings(max_examples=60, deadline=None)
@given(
    op=st.sampled_from(["MaxPool", "AveragePool"]), size=st.integers(4, 8), kernel=st.integers(2, 3),
    stride=st.integers(2, 4), before=st.integers(0, 1), after=st.integers(0, 1), padding=st.booleans(),
)  # fmt: skip
def test_values_are_those_of_a_loop_over_windows(
    op: str, size: int, kernel: int, stride: int, before: int, after: int, padding: bool
) -> None:
    more = {"count_include_pad": int(padding)} if op == "AveragePool" else {}
    pool = node(
        op, "x", "y", "pool", kernel_shape=[kernel] * 2, strides=[stride] * 2, ceil_mode=1,
        pads=[before, before, after, after], **more,
    )  # fmt: skip
    x = normal(0, 1, 2, size, size)
    found = import_proto(model([pool], {"x": x.shape}, opset=19), "model")
    found.check({"x": x})
    wanted = naive(x, op, kernel, stride, (before, after), padding and op == "AveragePool")
    np.testing.assert_allclose(Interpreter(found.module).run({"x": x})[0], wanted, atol=1e-6)


@pytest.mark.parametrize("pools", [1, 2])
def test_shapes_behind_it_follow(pools: int) -> None:
    """What the file computes from them too."""
    nodes = [node("MaxPool", f"p{i}", f"p{i + 1}", f"pool{i}", kernel_shape=[2, 2], strides=[2, 2],
                  pads=[1, 1, 1, 1], ceil_mode=1) for i in range(pools)]  # fmt: skip
    nodes += [node("Shape", f"p{pools}", "s"), node("Cast", "s", "y", to=TensorProto.FLOAT)]
    proto = model(nodes, {"p0": [1, 2, 7, 7]}, opset=19, outputs=["y"])
    proto.graph.output.append(helper.make_tensor_value_info(f"p{pools}", TensorProto.FLOAT, None))
    sizes, image = Interpreter(import_proto(proto, "model").module).run({"p0": normal(0, 1, 2, 7, 7)})
    assert image.shape == (1, 2, *[{1: 4, 2: 3}[pools]] * 2)
    np.testing.assert_array_equal(sizes, image.shape)
