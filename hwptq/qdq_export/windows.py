"""What slides over an image: convolutions, pools, resizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.ir.dataflow import shape_of

from .writer import Converter, NotExportable, Writer, ints

#: Roundings of a coordinate that ONNX knows.
_NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _conv2d(w: Writer, call: Any, output: str) -> str:
    a = call.attrs
    if str(a.data_layout) != "NCHW" or str(a.kernel_layout) != "OIHW":
        raise NotExportable(f"{output}: conv2d of layout {a.data_layout}/{a.kernel_layout}")
    return w.node(
        "Conv", [w.name(x) for x in call.args], output, strides=ints(a.strides), pads=ints(a.padding),
        dilations=ints(a.dilation), group=int(a.groups),
    )  # fmt: skip


def _pool(op: str) -> Converter:
    def convert(w: Writer, call: Any, output: str) -> str:
        a = call.attrs
        extra: dict[str, Any] = {}
        if op == "AveragePool":
            extra["count_include_pad"] = int(a.count_include_pad)
        if any(d != 1 for d in ints(a.dilation)):  # ONNX Runtime's pooling of codes knows no such attribute
            extra["dilations"] = ints(a.dilation)
        return w.node(
            op, [w.name(call.args[0])], output, kernel_shape=ints(a.pool_size), strides=ints(a.strides),
            pads=ints(a.padding), ceil_mode=int(a.ceil_mode), **extra,
        )  # fmt: skip

    return convert


def _global_pool(w: Writer, call: Any, output: str) -> str:
    if shape_of(call)[2:] != (1, 1):
        raise NotExportable(f"{output}: adaptive pooling to more than one pixel")
    return w.node("GlobalAveragePool", [w.name(call.args[0])], output)


def _resize(w: Writer, call: Any, output: str) -> str:
    a, modes = call.attrs, {"nearest_neighbor": "nearest", "linear": "linear", "cubic": "cubic"}
    mode, rounding = modes[str(a.method)], str(a.rounding_method)
    if str(a.layout) != "NCHW" or (mode == "nearest" and rounding not in _NEAREST_MODES):
        raise NotExportable(f"{output}: resize2d of layout {a.layout} with rounding {rounding}")
    nearest = {"nearest_mode": rounding} if mode == "nearest" else {}
    cubic = {"cubic_coeff_a": float(a.cubic_alpha)} if mode == "cubic" else {}
    start_h, start_w, end_h, end_w = (float(v) for v in a.roi)
    roi = w.tensor(np.array([0, 0, start_h, start_w, 1, 1, end_h, end_w], np.float32))
    sizes = w.tensor(np.array(shape_of(call), np.int64))
    return w.node(
        "Resize", [w.name(call.args[0]), roi, "", sizes], output, mode=mode, **nearest, **cubic,
        coordinate_transformation_mode=str(a.coordinate_transformation_mode),
        exclude_outside=int(a.cubic_exclude), extrapolation_value=float(a.extrapolation_value),
    )  # fmt: skip


CONVERTERS: dict[str, Converter] = {
    "nn.conv2d": _conv2d,
    "nn.max_pool2d": _pool("MaxPool"),
    "nn.avg_pool2d": _pool("AveragePool"),
    "nn.adaptive_avg_pool2d": _global_pool,
    "image.resize2d": _resize,
}
