"""New vectors of the norms of a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import op_name, rewrite
from hwptq.ir.provenance import Part

from .group_layers import Place

#: Norms that multiply by a vector, their second operand, and may add the third.
NORMS = ("nn.rms_norm", "nn.layer_norm")


def with_norm_vectors(mod: tvm.IRModule, new: Mapping[Place, Mapping[int, np.ndarray]]) -> tvm.IRModule:
    """A module whose norms have these vectors, by their place among the operands."""

    def visit(r: Any, var: Any, value: Any) -> Any:
        origin = r.origins[var]
        vectors = new.get((r.name, origin.label))
        if vectors is None or op_name(value) not in NORMS or origin.part is not Part.RESULT:
            return r.keep(value)
        args = [relax.const(vectors[i]) if i in vectors else r.get(a) for i, a in enumerate(value.args)]
        return relax.Call(value.op, args, value.attrs, value.ty_args, value.span)

    return rewrite(mod, visit)
