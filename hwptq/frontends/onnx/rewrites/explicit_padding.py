"""Automatic padding, and the output shape of a ConvTranspose, as paddings in numbers."""

from __future__ import annotations

import onnx

from hwptq.errors import UnsupportedError

from .surroundings import Surroundings, attribute, changed

_SAME = ("SAME_UPPER", "SAME_LOWER")


def same_padding(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """A Conv or a pooling with `pads` only.

    Where outputs are to be as many as strides begin in the image, ceil(n / stride),
    total = (outputs - 1) stride + (k - 1) dilation + 1 - n, of which SAME_UPPER has the smaller half before
    the image, SAME_LOWER the larger.
    """
    mode, image = attribute(node, "auto_pad", "NOTSET"), around.shape(node.input[0])
    kernel = attribute(node, "kernel_shape") or (around.shape(node.input[1]) or ())[2:]
    if mode == "NOTSET" or image is None or not kernel:
        return None
    if mode not in _SAME:
        return [changed(node, auto_pad=None, pads=[0] * 2 * len(kernel))]
    strides, dilations = (attribute(node, key) or [1] * len(kernel) for key in ("strides", "dilations"))
    axes = zip(image[2:], kernel, strides, dilations, strict=True)
    total = [max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n) for n, k, s, d in axes]
    return [changed(node, auto_pad=None, ceil_mode=None, pads=_halves(total, mode))]


def _halves(total: list[int], mode: str) -> list[int]:
    """What of the padding of each axis stands before the image, then what stands behind it."""
    less = [t // 2 for t in total]
    rest = [t - half for t, half in zip(total, less, strict=True)]
    return [*less, *rest] if mode == "SAME_UPPER" else [*rest, *less]


def explicit_padding(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """A ConvTranspose with `pads` and `output_padding` only.

    total = stride (n - 1) + (k - 1) dilation + 1 + output_padding - output, of which SAME_UPPER has the
    smaller half before the image, and all else the larger. Raises UnsupportedError where the output is larger
    than the kernel reaches.
    """
    mode, wanted = attribute(node, "auto_pad", "NOTSET"), attribute(node, "output_shape")
    image, weight = around.shape(node.input[0]), around.shape(node.input[1])
    if (not wanted and mode not in _SAME) or image is None or weight is None:
        return None
    rank = len(image) - 2
    strides, dilations = (attribute(node, key) or [1] * rank for key in ("strides", "dilations"))
    more = attribute(node, "output_padding") or [0] * rank
    wanted = list(wanted)[-rank:] if wanted else [n * s for n, s in zip(image[2:], strides, strict=True)]
    axes = zip(image[2:], weight[2:], strides, dilations, more, wanted, strict=True)
    total = [s * (n - 1) + (k - 1) * d + 1 + p - w for n, k, s, d, p, w in axes]
    more = [p + max(0, -t) for p, t in zip(more, total, strict=True)]
    if any(p and p >= max(s, d) for p, s, d in zip(more, strides, dilations, strict=True)):
        raise UnsupportedError(
            f"node {node.name!r}: ConvTranspose of {list(image)} with output_shape {wanted} reaches beyond "
            f"its kernel; give it a Pad behind it instead"
        )
    pads = _halves([max(0, t) for t in total], mode)
    return [changed(node, auto_pad=None, output_shape=None, pads=pads, output_padding=more)]
