"""CachesInBytes: caches of a language model in int8, a scale for each row of their last axis."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from hwptq.ir.caches import Cache, Caches, caches_of, results, with_caches
from hwptq.ir.dataflow import Rewriter, bindings, main_functions, op_name, rewrite, shape_of
from hwptq.ir.provenance import Part
from hwptq.lowering.emitter import Emitter
from hwptq.operators.rows import RowQuantize, RowScale
from hwptq.targets.schema import Descriptor


@tvm.transform.module_pass(opt_level=0, name="hwptq.CachesInBytes")
class CachesInBytes:
    """where(here, new, past) of a float32 cache [..., N, D] -> two caches, int8 codes [..., N, D] and scales
    [..., N, 1]: RowScale and RowQuantize (operators/rows.py) of `new` are written into them, and what the
    function reads is codes * scales.

    For an integer module on which CarryCaches has noted caches. One whose rows are not written whole stays in
    float32; where there is none that can be in bytes, ValueError says so.
    """

    def __init__(self, target: Descriptor):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        split = {gv: _Split.of(func) for gv, func in main_functions(mod) if caches_of(func)}
        if not any(found.writes for found in split.values()):
            raise ValueError("--kv-cache int8: the model has no caches of whole rows")
        by_name = {str(gv.name_hint): found for gv, found in split.items()}
        emitters: dict[int, Emitter] = {}

        def begin(r: Rewriter) -> None:
            found = by_name.get(r.name)
            for past, (codes, scale) in found.parts.items() if found else ():
                r.env[past] = _values(r, codes, scale, r.origins[past].with_part(Part.REAL))

        def visit(r: Rewriter, var: Any, value: Any) -> Any:
            found = by_name.get(r.name)
            if found is None or var not in found.writes:
                return r.keep(value)
            if id(r) not in emitters:
                emitters[id(r)] = Emitter(r, dict(bindings(r.func)), self.target.accumulators)
            here, new, past = value.args
            e, shape, origin = emitters[id(r)], shape_of(new), r.origins[var]
            real, (codes, scales) = r.get(new), found.parts[past]
            scale = e.call(RowScale(), [real], (), (*shape[:-1], 1), "float32")
            row = e.call(RowQuantize(), [real, scale], (), shape, "int8", origin.with_part(Part.CODES))
            now = [
                r.emit(relax.op.where(r.get(here), fresh, old))
                for fresh, old in ((row, codes), (scale, scales))
            ]
            found.written[var] = tuple(now)
            return _values(r, now[0], now[1], origin)

        def result(r: Rewriter) -> Any:
            found = by_name.get(r.name)
            outputs = results(r.func)
            return relax.Tuple(found.outputs(r, outputs)) if found else r.get(r.func.body.body)

        def params(name: str, func: Any) -> list[Any]:
            found = by_name.get(name)
            return found.params if found else list(func.params)

        out = rewrite(mod, visit, begin, result, params)
        for gv, found in split.items():
            out[gv] = with_caches(out[gv], found.caches())
        return out


class _Split:
    """The caches of a function that become two. parts: past -> the params of its codes and scales; writes:
    the vars that write them; written: what those are in the new function."""

    def __init__(self, func: Any, writes: dict[Any, Any]):
        self._func, self.writes = func, writes
        self.written: dict[Any, tuple[Any, ...]] = {}
        self.parts = {past: _parts(past) for past in writes.values()}

    @classmethod
    def of(cls, func: Any) -> _Split:
        caches, values, given = caches_of(func), dict(bindings(func)), results(func)
        assert caches
        writes = {}
        for cache in caches.pairs:
            var, past = given[cache.output], func.params[cache.input]
            if _is_of_rows(values.get(var), past):
                writes[var] = past
        return cls(func, writes)

    @property
    def params(self) -> list[Any]:
        """Of the new function."""
        return [p for old in self._func.params for p in self.parts.get(old, (old,))]

    def outputs(self, r: Rewriter, given: tuple[Any, ...]) -> list[Any]:
        """Of the new function, in the order of the old one's."""
        return [new for var in given for new in self.written.get(var, (r.get(var),))]

    def caches(self) -> Caches:
        """Those of the new function."""
        old = caches_of(self._func)
        assert old
        params, given = list(self._func.params), results(self._func)
        wide = [2 if p in self.parts else 1 for p in params]
        broad = [2 if v in self.writes else 1 for v in given]
        pairs = [
            Cache(sum(wide[: c.input]) + i, sum(broad[: c.output]) + i)
            for c in old.pairs
            for i in range(wide[c.input])
        ]
        position = None if old.position is None else sum(wide[: old.position])
        return Caches(tuple(pairs), position, old.context)


def _parts(param: Any) -> tuple[Any, Any]:
    shape, name = shape_of(param), str(param.name)
    codes = relax.Var(f"{name}.codes", relax.TensorType(shape, "int8"), param.span)
    return codes, relax.Var(f"{name}.scales", relax.TensorType((*shape[:-1], 1), "float32"), param.span)


def _is_of_rows(value: Any, past: Any) -> bool:
    """Whether where(here, new, past) writes whole rows of float32."""
    if op_name(value) != "where" or value.args[2] != past or str(past.ty.dtype) != "float32":
        return False
    here, new = (shape_of(a) for a in value.args[:2])
    return here[-1] == 1 and new[-1] == shape_of(past)[-1]


def _values(r: Rewriter, codes: Any, scales: Any, origin: Any) -> Any:
    back = r.emit(relax.op.astype(codes, "float32"))
    return r.emit(relax.op.multiply(back, scales), origin)
