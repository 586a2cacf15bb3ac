"""Relax passes: each works inside anybody's tvm.ir.transform.Sequential."""

from .fold_batch_norm import FoldBatchNorm
from .fuse_conv_relu import FuseConvRelu
from .insert_qdq import InsertQDQ
from .lower_to_integer import LowerToInteger
from .normalize_qdq import NormalizeQDQ, is_quantized
from .select_kernels import SelectKernels

__all__ = [
    "FoldBatchNorm",
    "FuseConvRelu",
    "InsertQDQ",
    "LowerToInteger",
    "NormalizeQDQ",
    "SelectKernels",
    "is_quantized",
]
