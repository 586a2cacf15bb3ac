"""Relax passes: each works inside anybody's tvm.ir.transform.Sequential."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .absorb_high_bias import AbsorbHighBias
    from .assign_bit_widths import AssignBitWidths
    from .correct_bias import CorrectBias
    from .correct_fp8_bias import CorrectFp8Bias
    from .equalize_cross_layer import EqualizeCrossLayer
    from .fold_batch_norm import FoldBatchNorm
    from .fuse_conv_relu import FuseConvRelu
    from .insert_qdq import InsertQDQ
    from .lower_conv_transpose import LowerConvTranspose
    from .lower_to_integer import LowerToInteger
    from .normalize_qdq import NormalizeQDQ, is_quantized
    from .round_weights import RoundingOptions, RoundWeights
    from .select_kernels import SelectKernels
    from .smooth_activations import SmoothActivations
    from .uniform_variants import uniform_variants

__all__ = [
    "AbsorbHighBias",
    "AssignBitWidths",
    "CorrectBias",
    "CorrectFp8Bias",
    "EqualizeCrossLayer",
    "FoldBatchNorm",
    "FuseConvRelu",
    "InsertQDQ",
    "LowerConvTranspose",
    "LowerToInteger",
    "NormalizeQDQ",
    "RoundWeights",
    "RoundingOptions",
    "SelectKernels",
    "SmoothActivations",
    "is_quantized",
    "uniform_variants",
]
_HOMES = {
    "AbsorbHighBias": "absorb_high_bias",
    "AssignBitWidths": "assign_bit_widths",
    "CorrectBias": "correct_bias",
    "CorrectFp8Bias": "correct_fp8_bias",
    "EqualizeCrossLayer": "equalize_cross_layer",
    "FoldBatchNorm": "fold_batch_norm",
    "FuseConvRelu": "fuse_conv_relu",
    "InsertQDQ": "insert_qdq",
    "LowerConvTranspose": "lower_conv_transpose",
    "LowerToInteger": "lower_to_integer",
    "NormalizeQDQ": "normalize_qdq",
    "RoundWeights": "round_weights",
    "RoundingOptions": "round_weights",
    "SelectKernels": "select_kernels",
    "SmoothActivations": "smooth_activations",
    "is_quantized": "normalize_qdq",
    "uniform_variants": "uniform_variants",
}


def __getattr__(name: str) -> Any:
    """Import a pass when it is first used: some need modules that need others of this package."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
