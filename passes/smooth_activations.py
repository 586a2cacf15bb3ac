"""SmoothActivations: move the outliers of a layer norm's channels into the weights of dense layers behind it.

    dense(norm(x; gamma, beta), W) = dense(norm(x; gamma / s, beta / s), s W)
    s_j = max|X_j|^strength / max|W_j|^(1 - strength)           per channel j, X what the norm gives

Xiao et al. 2023, "SmoothQuant", equation 4. Outputs stay the same; what is quantized per tensor is flatter.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.interpret import observe_all
from hwptq.ir.composite import Composite, read_composite
from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of, users
from hwptq.ir.provenance import Origin, origins


@tvm.transform.module_pass(opt_level=0, name="hwptq.SmoothActivations")
class SmoothActivations:
    """Smooth every layer norm of constant gamma and beta whose result dense layers read.

    Other readers of the norm (a residual, say) go on reading the norm as it was, which then stands beside the
    smoothed one. samples: dicts of the module's inputs, read once; strength: 0 leaves the outliers in the
    activations, 1 moves all of them into the weights.
    """

    def __init__(self, samples: Iterable[dict[str, np.ndarray]], strength: float = 0.5):
        if not 0 <= strength <= 1:
            raise ValueError(f"the strength of smoothing lies in [0, 1], got {strength}")
        self.samples, self.strength = samples, strength

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        norms = _norms(mod)
        if not norms:
            return mod
        names = _places(mod, norms)
        reach = _channel_reach(mod, set(names.values()), self.samples)
        factors = {var: self._factors(reach[names[var]], layers) for var, layers in norms.items()}
        smoothed: dict[Any, Any] = {}  # norm -> the smoothed norm

        def visit(r: Any, var: Any, value: Any) -> Any:
            if var in factors:
                smoothed[var] = r.emit(_divided(r.keep(value), factors[var]))
                return r.keep(value)
            source = value.args[0] if isinstance(value, relax.Call) and value.args else None
            if source not in factors or var not in {v for v, _ in norms[source]}:
                return r.keep(value)
            scaled = relax.const((constant(value.args[1]) * factors[source][:, None]).astype(np.float32))
            call = r.keep(value)
            return relax.Call(call.op, [smoothed[source], scaled, *call.args[2:]], call.attrs, call.ty_args)

        return rewrite(mod, visit)

    def _factors(self, reach: np.ndarray, layers: list[tuple[Any, Composite]]) -> np.ndarray:
        """s [K], 1 where a channel is dead on either side."""
        weights = np.max([np.abs(_weight(unit)).max(axis=1) for _, unit in layers], axis=0)
        alive = (reach > 0) & (weights > 0)
        x, w = np.where(alive, reach, 1.0), np.where(alive, weights, 1.0)
        return np.where(alive, x**self.strength / w ** (1 - self.strength), 1.0)


def _norms(mod: tvm.IRModule) -> dict[Any, list[tuple[Any, Composite]]]:
    """Layer norm over the last axis -> the dense layers that read it, each with its var."""
    found: dict[Any, list[tuple[Any, Composite]]] = {}
    for _, func in main_functions(mod):
        values, readers = dict(bindings(func)), users(func)
        for var, value in values.items():
            if op_name(value) != "nn.layer_norm" or any(constant(a) is None for a in value.args[1:3]):
                continue
            rank = len(shape_of(var))
            if [int(a) % rank for a in value.attrs.axes] != [rank - 1]:
                continue
            units = [(u, read_composite(mod, values[u])) for u in readers.get(var, ()) if u is not None]
            layers = [(u, unit) for u, unit in units if unit is not None and _is_dense(unit, var)]
            if layers:
                found[var] = layers
    return found


def _is_dense(unit: Composite, source: Any) -> bool:
    weight = constant(unit.args[1])
    return unit.kind == "matmul" and unit.args[0] == source and weight is not None and weight.ndim == 2


def _weight(unit: Composite) -> np.ndarray:
    weight = constant(unit.args[1])
    assert weight is not None  # _is_dense
    return weight


def _places(mod: tvm.IRModule, chosen: Container[Any]) -> dict[Any, tuple[str, str]]:
    """Function and label of the chosen vars."""
    return {
        var: (str(gv.name_hint), origin.label)
        for gv, func in main_functions(mod)
        for var, origin in origins(func).items()
        if var in chosen
    }


def _channel_reach(
    mod: tvm.IRModule, tensors: set[tuple[str, str]], samples: Iterable[dict[str, np.ndarray]]
) -> dict[tuple[str, str], np.ndarray]:
    """The largest magnitude of each channel (last axis) of tensors, by function and label, over `samples`."""
    found: dict[tuple[str, str], np.ndarray] = {}

    def observe(function: str, origin: Origin, value: np.ndarray) -> None:
        tensor = function, origin.label
        if tensor in tensors:
            reach = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            found[tensor] = np.maximum(found.get(tensor, reach), reach)

    observe_all(mod, samples, observe)
    if tensors - found.keys():
        raise ValueError("SmoothActivations needs at least one sample")
    return found


def _divided(norm: Any, factors: np.ndarray) -> Any:
    """A layer norm whose result is divided by `factors`."""
    gamma, beta = (constant(a) for a in norm.args[1:3])
    assert gamma is not None
    assert beta is not None
    constants = [relax.const((c / factors).astype(np.float32)) for c in (gamma, beta)]
    return relax.Call(norm.op, [norm.args[0], *constants], norm.attrs, norm.ty_args)
