"""The tensors that a program reads and gives: shapes, dtypes, and the scales of the codes inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
from tvm import relax

from hwptq.backends.program import Program, Tensor
from hwptq.ir.dataflow import bindings
from hwptq.ir.qdq import dequantizes, quantizes, scale_and_zero


def interface(program: Program, qdq: tvm.IRModule) -> dict[str, list[dict[str, Any]]]:
    """The object `interface` of the report: `inputs` and `outputs`, each with name, shape and dtype, and
    codes, scale and zero_point of the form in which the code computes with it; None where it has no such one.

    The program quantizes its inputs and dequantizes its outputs itself.
    """
    function = qdq["main"]
    values = dict(bindings(function))
    read = {
        value.args[0]: _scale(str(var.ty.dtype), value)
        for var, value in reversed(values.items())
        if quantizes(value)
    }  # fmt: skip
    given = [_dequantized(var, values) for var in _results(function)]
    return {
        "inputs": [
            _row(t, read.get(v)) for t, v in zip(program.inputs, function.params, strict=False)
        ],
        "outputs": [_row(t, scale) for t, scale in zip(program.outputs, given, strict=False)],
    }  # fmt: skip


def _row(tensor: Tensor, scale: dict[str, Any] | None) -> dict[str, Any]:
    none = {"codes": None, "scale": None, "zero_point": None}
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype, **(scale or none)}


def _scale(codes: str, value: relax.Expr) -> dict[str, Any] | None:
    """That of a quantize or a dequantize with one scale."""
    scale, zero = scale_and_zero(value)
    if scale is None or scale.size != 1:
        return None
    return {
        "codes": codes,
        "scale": float(scale.item()),
        "zero_point": 0 if zero is None else int(zero.item()),
    }


def _dequantized(var: relax.Expr, values: dict[relax.Var, relax.Expr]) -> dict[str, Any] | None:
    value = values.get(var)
    if value is None or not dequantizes(value):
        return None
    return _scale(str(value.args[0].ty.dtype), value)


def _results(function: relax.Function) -> Iterator[relax.Expr]:
    """What the function returns, tensor by tensor."""
    values = dict(bindings(function))

    def source(var: relax.Expr) -> relax.Expr:
        """The var, or the tuple, that it is another name of."""
        while isinstance(values.get(var), relax.Var | relax.Tuple):
            var = values[var]
        return var

    result = source(function.body.body)
    yield from map(source, result.fields if isinstance(result, relax.Tuple) else [result])
