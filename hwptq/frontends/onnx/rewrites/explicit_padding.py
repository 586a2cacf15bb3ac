"""ConvTranspose with its output shape, or automatic padding, as paddings in numbers."""

from __future__ import annotations

import onnx

from hwptq.errors import UnsupportedError

from .surroundings import Surroundings, attribute, changed


def explicit_padding(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """The node with `pads` and `output_padding` only.

    total = stride (n - 1) + (k - 1) dilation + 1 + output_padding - output, of which SAME_UPPER has the
    smaller half before the image, and all else the larger. Raises UnsupportedError where the output is larger
    than the kernel reaches.
    """
    mode, wanted = attribute(node, "auto_pad", "NOTSET"), attribute(node, "output_shape")
    image, weight = around.shape(node.input[0]), around.shape(node.input[1])
    if (not wanted and mode not in ("SAME_UPPER", "SAME_LOWER")) or image is None or weight is None:
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
    less = [max(0, t) // 2 for t in total]
    rest = [max(0, t) - half for t, half in zip(total, less, strict=True)]
    pads = [*less, *rest] if mode == "SAME_UPPER" else [*rest, *less]
    return [changed(node, auto_pad=None, output_shape=None, pads=pads, output_padding=more)]
