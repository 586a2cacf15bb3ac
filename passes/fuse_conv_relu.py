"""FuseConvRelu: outline conv2d, matmul or add with its bias and its clamp as one Composite function.

The composite is the unit of quantization: nothing inside it is rounded on its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, users
from hwptq.lowering.elementwise import elementwise_roots

_HEADS = {
    "nn.conv2d": "hwptq.conv2d",
    "matmul": "hwptq.matmul",
    "add": "hwptq.add",
    "nn.group_norm": "hwptq.group_norm",
}
#: What becomes a Composite only with a clamp behind it.
_PLAIN = ("nn.group_norm",)
#: What has no weight that a bias goes with.
_UNBIASED = ("add", "nn.group_norm")


@tvm.transform.module_pass(opt_level=0, name="hwptq.FuseConvRelu")
class FuseConvRelu:
    """conv2d|matmul [+ constant bias] [relu|clip], add [relu|clip] and group_norm relu|clip -> Composite
    "hwptq.*".

    Behind a matmul of two activations it may be multiplied with positive numbers.

    Links of the chain must have a single reader. Relu, ReLU6 and Clip with any bounds are carried along. An
    add that is a function of one tensor, as those of a GELU are, becomes a table with its neighbours.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        chains: dict[Any, list[Any]] = {}  # last var -> the chain's bindings
        inner: set[Any] = set()
        for _, func in main_functions(mod):
            values, readers = dict(bindings(func)), users(func)
            roots = elementwise_roots(values)
            for var, value in values.items():
                of_one = op_name(value) == "add" and (roots[var] is not var or _adds_scalar(value))
                if op_name(value) in _HEADS and var not in inner and not of_one:
                    chain = _chain(var, values, readers)
                    if op_name(value) in _PLAIN and len(chain) == 1:
                        continue
                    chains[chain[-1]] = [(v, values[v]) for v in chain]
                    inner.update(chain[:-1])
                    inner.add(chain[-1])

        def visit(r: Any, var: Any, value: Any) -> Any:
            if var in chains:
                return _outline(r, chains[var])
            return None if var in inner else r.keep(value)

        return rewrite(mod, visit)


def _adds_scalar(value: Any) -> bool:
    """Whether an add has a number as an operand."""
    return any(c is not None and c.size == 1 for c in map(constant, value.args))


def _next(var: Any, values: Any, readers: Any) -> tuple[Any, Any]:
    """The only reader of `var` and its value, or (None, None)."""
    who = readers.get(var, [])
    return (who[0], values[who[0]]) if len(who) == 1 and who[0] is not None else (None, None)


def _chain(head: Any, values: Any, readers: Any) -> list[Any]:
    chain = [head]
    weight = _is_weight(values[head].args[1], values)
    if op_name(values[head]) not in _UNBIASED and weight:
        var, value = _next(chain[-1], values, readers)
        added = op_name(value) == "add" and value.args[0] == chain[-1] and constant(value.args[1]) is not None
        if added and _per_channel(value, op_name(values[head])):
            chain.append(var)
    while op_name(values[head]) == "matmul" and not weight:
        var, value = _next(chain[-1], values, readers)
        if not _scales(value, chain[-1]):
            break
        chain.append(var)
    var, value = _next(chain[-1], values, readers)
    if op_name(value) in ("nn.relu", "clip"):
        chain.append(var)
    return chain


def _is_weight(expr: Any, values: Any) -> bool:
    """Whether an operand is a constant, or the values of constant codes."""
    held = values.get(expr)
    codes = held.args[0] if op_name(held) == "dequantize" else None
    return constant(expr) is not None or (codes is not None and constant(codes) is not None)


def _scales(value: Any, source: Any) -> bool:
    """Whether `value` is `source` times a positive number, or divided by one."""
    if op_name(value) not in ("multiply", "divide"):
        return False
    first, second = value.args if value.args[0] == source else value.args[::-1]
    number = constant(second)
    if op_name(value) == "divide" and value.args[0] != source:
        return False
    return bool(first == source and number is not None and number.size == 1 and number.reshape(()) > 0)


def _per_channel(add: Any, kind: str) -> bool:
    """Whether the constant of an add is a scalar or holds one value per output channel."""
    bias = constant(add.args[1])
    assert bias is not None
    if bias.size == 1:
        return True
    shape = (1, bias.size, 1, 1) if kind == "nn.conv2d" else (1,) * (bias.ndim - 1) + (bias.size,)
    return tuple(bias.shape) in (shape, shape[1:]) and np.prod(bias.shape) == bias.size


def _outline(r: Any, chain: list[tuple[Any, Any]]) -> Any:
    """A call of a new Composite function that holds the chain; constants become its arguments."""
    kind = _HEADS[op_name(chain[0][1])]
    builder = relax.BlockBuilder()
    params: list[Any] = []
    actuals: list[Any] = []
    local: dict[Any, Any] = {}

    def parameter(expr: Any) -> Any:
        param = relax.Var(f"p{len(params)}", expr.ty)
        params.append(param)
        actuals.append(r.get(expr))
        return param

    steps = []
    for var, value in chain:
        tensors = [a for a in value.args if isinstance(a, relax.Var) or constant(a) is not None]
        steps.append((var, value, [a if a in local else parameter(a) for a in tensors]))
        local[var] = None
    with builder.function("composite", params):
        with builder.dataflow():
            for var, value, args in steps:
                rest = list(value.args)[len(args) :]
                args = [local.get(a, a) for a in args]
                local[var] = builder.emit(relax.Call(value.op, args + rest, value.attrs, value.ty_args))
            out = builder.emit_output(local[chain[-1][0]])
        builder.emit_func_output(out)
    func = builder.get()["composite"].with_attrs({"Composite": kind, "Primitive": True})
    func = func.without_attr("global_symbol")
    return r.emit(relax.Call(r.add_function(func, kind.replace(".", "_")), actuals), r.origins[chain[0][0]])
