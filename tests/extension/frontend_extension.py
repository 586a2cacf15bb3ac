"""A frontend in a file of its own: fully connected networks as plain lists of weight matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from hwptq.frontends.frontend import Frontend
from hwptq.frontends.model import Model
from hwptq.frontends.relax import import_relax


class MatrixFrontend(Frontend):
    """[[in, hidden], [hidden, out] …] float32: ReLU between them."""

    accepts = "a list of matrices"

    @classmethod
    def takes(cls, source: Any) -> bool:
        return isinstance(source, list) and all(isinstance(w, np.ndarray) and w.ndim == 2 for w in source)

    def read(self, source: Any, axes: Mapping[str, int]) -> Model:
        builder = relax.BlockBuilder()
        x = relax.Var("x", relax.TensorType((1, source[0].shape[0]), "float32"))
        with builder.function("main", [x]):
            with builder.dataflow():
                y: Any = x
                for i, weight in enumerate(source[:-1]):
                    y = builder.emit(relax.op.matmul(y, relax.const(weight)), f"hidden{i}")
                    y = builder.emit(relax.op.nn.relu(y))
                y = builder.emit_output(relax.op.matmul(y, relax.const(source[-1])), "last")
            builder.emit_func_output(y)
        return import_relax(builder.get(), axes=axes)
