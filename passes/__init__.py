"""Relax passes: each works inside anybody's tvm.ir.transform.Sequential."""

from .fold_batch_norm import FoldBatchNorm
from .fuse_conv_relu import FuseConvRelu

__all__ = ["FoldBatchNorm", "FuseConvRelu"]
