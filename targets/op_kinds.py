"""The kinds of operators that a descriptor may list: an open set."""

from __future__ import annotations

CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
WEIGHTED_OPS = (*CONVOLUTIONS, "dense")
#: Dense layers on int8 with a scale a token, by weights with a scale for each group of inputs.
GROUP_OP = "group_dense"
#: What sums products.
PRODUCTS = (*WEIGHTED_OPS, "matmul")
#: What may read a residual stream: the first dtype of a pair is what is read.
STREAM_OPS = ("softmax", "layer_norm", "rms_norm", "group_norm")
OTHER_OPS = (
    GROUP_OP, "matmul", "add", "mul", "lookup", *STREAM_OPS, "max_pool", "avg_pool", "resize",
    "concat", "data_movement",
)  # fmt: skip

#: Kinds that a device need not list: portable code computes them on all.
EVERYWHERE_OPS = ("embedding", "recurrent", "masked_mean", "masked_max")

#: Kinds of operators that are defined elsewhere, and whether all devices that run portable code compute them.
_ADDED: dict[str, bool] = dict.fromkeys(EVERYWHERE_OPS, True)


def register_op(kind: str, everywhere: bool) -> None:
    """Make a kind known; `everywhere`: devices need not list it, portable code computes it in int8."""
    if kind not in WEIGHTED_OPS + OTHER_OPS:
        _ADDED[kind] = everywhere


def op_kinds() -> tuple[str, ...]:
    """All that a descriptor may list."""
    return (*WEIGHTED_OPS, *OTHER_OPS, *_ADDED)


def is_everywhere(kind: str) -> bool:
    """Whether a device need not list it."""
    return _ADDED.get(kind, False)
