"""Building PrimFuncs: tensors and their layouts, vectors, threads, requantization. It knows no operator."""

from .kernel import Argument, Step, TensorType

__all__ = ["Argument", "Step", "TensorType"]
