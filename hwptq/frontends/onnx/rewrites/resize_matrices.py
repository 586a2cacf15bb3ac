"""Resize by scales that give no whole numbers of pixels, or against aliasing, as a product along each axis.

Every kind of Resize is linear in the pixels, and one axis at a time; TVM's goes by the ratio of the sizes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from hwptq.errors import UnsupportedError

from .parts import Parts, given
from .surroundings import Surroundings, attribute

_MOST = 1024  # pixels of an axis: onnx.reference takes them one by one
_CROPS = "tf_crop_and_resize"
_OPSET = 19


def resize_matrices(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """A Gather or a MatMul for each axis that changes; None where TVM's own Resize is right.

    Raises UnsupportedError for sizes that follow from each other, and for an antialias that is left to TVM,
    which has none.
    """
    shape, scales, sizes = around.shape(node.input[0]), _value(around, node, 2), _value(around, node, 3)
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError(
            f"node {node.name!r} (Resize): keep_aspect_ratio_policy is not supported; give the sizes"
        )
    wanted = sizes if scales is None else scales
    crops = attribute(node, "coordinate_transformation_mode", "half_pixel") == _CROPS
    whole = not crops and around.opset >= 11
    if not whole or shape is None or wanted is None or len(wanted) != len(shape) or max(shape) > _MOST:
        if attribute(node, "antialias", 0):
            raise UnsupportedError(
                f"node {node.name!r} (Resize): antialias is not supported where it crops, for sizes that are "
                f"no constants, and for axes of more than {_MOST} pixels; resize such images before the model"
            )
        return None
    exact = np.array(shape, np.float32) * (1 if scales is None else scales)
    if not attribute(node, "antialias", 0) and np.array_equal(exact, np.round(exact)):
        return None
    if scales is not None and _by_corners(node):
        scales, wanted = None, np.floor(exact).astype(np.int64)
    parts, x = Parts(around, node), node.input[0]
    changes = [a for a, v in enumerate(wanted) if v != (shape[a] if scales is None else 1)]
    for axis in changes:
        matrix = _matrix(node, shape[axis], wanted[axis], scales is not None)
        last = node.output[0] if axis == changes[-1] else ""
        if attribute(node, "mode", "nearest") == "nearest":
            places = parts.constant(matrix.argmax(axis=1), np.int64)
            x = parts.op("Gather", [x, places], last, axis=axis)
            continue
        order = list(range(len(shape)))
        order[axis], order[-1] = order[-1], order[axis]
        moved = axis != len(shape) - 1
        x = parts.op("Transpose", [x], perm=order) if moved else x
        x = parts.op("MatMul", [x, parts.constant(matrix.T)], "" if moved else last)
        x = parts.op("Transpose", [x], last, perm=order) if moved else x
    return parts.nodes if changes else None


def _value(around: Surroundings, node: onnx.NodeProto, index: int) -> np.ndarray | None:
    name = given(node, index)
    value = around.constant(name) if name else None
    return value if value is not None and value.size else None


def _by_corners(node: onnx.NodeProto) -> bool:
    """Whether the first and the last pixels lie on each other: then whole sizes count, as in PyTorch and ONNX
    Runtime, and no scale; onnx.reference goes by the size before it is cut to a whole one."""
    return bool(attribute(node, "coordinate_transformation_mode", "half_pixel") == "align_corners")


def _matrix(node: onnx.NodeProto, size: int, wanted: float, by_scale: bool) -> np.ndarray:
    """[new pixels, pixels]: what each new pixel of an axis takes of each, as ONNX makes of unit images."""
    kept = [a for a in node.attribute if a.name not in ("axes", "keep_aspect_ratio_policy")]
    feeds = (
        {"scales": np.array([wanted, 1], np.float32)}
        if by_scale
        else {"sizes": np.array([wanted, size], np.int64)}
    )
    names = ["x", "", *(["scales"] if by_scale else ["", "sizes"])]
    one = helper.make_node("Resize", names, ["y"])
    one.attribute.extend(kept)
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in feeds.items()}
    graph = helper.make_graph(
        [one],
        "resize",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)]
        + [helper.make_tensor_value_info(n, k, None) for n, k in kinds.items()],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    (found,) = ReferenceEvaluator(model).run(None, {"x": np.eye(size, dtype=np.float32), **feeds})
    return np.asarray(found, np.float32)
