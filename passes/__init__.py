"""Relax passes: each works inside anybody's tvm.ir.transform.Sequential."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .absorb_high_bias import AbsorbHighBias as AbsorbHighBias
    from .assign_bit_widths import AssignBitWidths as AssignBitWidths
    from .caches_in_bytes import CachesInBytes as CachesInBytes
    from .carry_caches import CarryCaches as CarryCaches
    from .correct_bias import CorrectBias as CorrectBias
    from .equalize_cross_layer import EqualizeCrossLayer as EqualizeCrossLayer
    from .equalize_depthwise import EqualizeDepthwise as EqualizeDepthwise
    from .exact_functions import ExactFunctions as ExactFunctions
    from .fit_integers import FitIntegers as FitIntegers
    from .fold_batch_norm import FoldBatchNorm as FoldBatchNorm
    from .fuse_attention import FuseAttention as FuseAttention
    from .fuse_conv_relu import FuseConvRelu as FuseConvRelu
    from .fuse_masks import FuseMasks as FuseMasks
    from .fuse_norms import FuseNorms as FuseNorms
    from .fuse_pooling import FusePooling as FusePooling
    from .insert_dynamic_qdq import InsertDynamicQDQ as InsertDynamicQDQ
    from .insert_qdq import InsertQDQ as InsertQDQ
    from .join_kernels import JoinKernels as JoinKernels
    from .join_real_kernels import JoinRealKernels as JoinRealKernels
    from .keep_unlisted import KeepUnlisted as KeepUnlisted
    from .lower_conv_transpose import LowerConvTranspose as LowerConvTranspose
    from .lower_to_integer import LowerToInteger as LowerToInteger
    from .match_outputs import MatchOutputs as MatchOutputs
    from .normalize_qdq import NormalizeQDQ as NormalizeQDQ
    from .normalize_qdq import is_quantized as is_quantized
    from .quantize_summands import QuantizeSummands as QuantizeSummands
    from .read_prompt import ReadPrompt as ReadPrompt
    from .reconstruct_blocks import ReconstructBlocks as ReconstructBlocks
    from .round_groups import RoundGroups as RoundGroups
    from .round_weights import RoundingOptions as RoundingOptions
    from .round_weights import RoundWeights as RoundWeights
    from .run_in_bands import RunInBands as RunInBands
    from .select_kernels import SelectKernels as SelectKernels
    from .smooth_activations import SmoothActivations as SmoothActivations
    from .variants import uniform_variants as uniform_variants
    from .widen_activations import WidenActivations as WidenActivations

#: Module -> the public names that it defines.
_PUBLIC = {
    "absorb_high_bias": ("AbsorbHighBias",),
    "assign_bit_widths": ("AssignBitWidths",),
    "caches_in_bytes": ("CachesInBytes",),
    "carry_caches": ("CarryCaches",),
    "correct_bias": ("CorrectBias",),
    "equalize_cross_layer": ("EqualizeCrossLayer",),
    "equalize_depthwise": ("EqualizeDepthwise",),
    "exact_functions": ("ExactFunctions",),
    "fit_integers": ("FitIntegers",),
    "fold_batch_norm": ("FoldBatchNorm",),
    "fuse_attention": ("FuseAttention",),
    "fuse_conv_relu": ("FuseConvRelu",),
    "fuse_masks": ("FuseMasks",),
    "fuse_norms": ("FuseNorms",),
    "fuse_pooling": ("FusePooling",),
    "insert_dynamic_qdq": ("InsertDynamicQDQ",),
    "insert_qdq": ("InsertQDQ",),
    "join_kernels": ("JoinKernels",),
    "join_real_kernels": ("JoinRealKernels",),
    "keep_unlisted": ("KeepUnlisted",),
    "lower_conv_transpose": ("LowerConvTranspose",),
    "lower_to_integer": ("LowerToInteger",),
    "match_outputs": ("MatchOutputs",),
    "normalize_qdq": (
        "NormalizeQDQ",
        "is_quantized",
    ),
    "read_prompt": ("ReadPrompt",),
    "reconstruct_blocks": ("ReconstructBlocks",),
    "quantize_summands": ("QuantizeSummands",),
    "round_groups": ("RoundGroups",),
    "round_weights": (
        "RoundWeights",
        "RoundingOptions",
    ),
    "run_in_bands": ("RunInBands",),
    "select_kernels": ("SelectKernels",),
    "smooth_activations": ("SmoothActivations",),
    "variants": ("uniform_variants",),
    "widen_activations": ("WidenActivations",),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a pass when it is first used: some need modules that need others of this package."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
