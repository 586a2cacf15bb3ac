"""The tensors that a program reads and gives: shapes, dtypes, and the scales of the codes inside."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from hwptq.backends.program import Program, Tensor
from hwptq.ir.caches import fed_inputs, given_outputs, results
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
    given = [_dequantized(var, values) for var in given_outputs(function, results(function))]
    fed = fed_inputs(function, function.params)
    return {
        "inputs": [_row(t, read.get(v)) for t, v in zip(program.inputs, fed, strict=True)],
        "outputs": [_row(t, scale) for t, scale in zip(program.outputs, given, strict=True)],
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
