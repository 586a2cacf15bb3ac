"""Operators that compare or move codes, or look them up: they compute no new values, and take any format."""

from __future__ import annotations

from collections.abc import Sequence

import tvm

from hwptq.formats import holds_floats
from hwptq.ir.callback import callback
from hwptq.ir.operator import Operator
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import SCALAR, VectorUnit


class CodeOperator(Operator):
    """An operator on codes. Of integers it has portable code; of floats its reference is its code."""

    def primfunc(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit = SCALAR
    ) -> tvm.tirx.PrimFunc:
        """The PrimFunc (inputs…, out) for what the first tensor holds."""
        if holds_floats(inputs[0].dtype):
            return callback(self, inputs, out)
        return super().primfunc(inputs, out, unit)
