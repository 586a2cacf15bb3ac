"""Kernel templates: TIR for each integer operator, filled with the data of a target descriptor."""

from hwptq.tir.kernel import Argument, Step, TensorType

__all__ = ["Argument", "Step", "TensorType"]
