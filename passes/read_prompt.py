"""ReadPrompt: of a step, which reads one token, what reads several and leaves the same caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.caches import Caches, caches_of, fed_inputs, results
from hwptq.ir.dataflow import Constant, Rewriter, bindings, main_functions, reads, rewrite, shape_of
from hwptq.operators.write_rows import WriteRows

from .graph.inlined import inlined
from .graph.rows_behind import Write, cache_writes
from .graph.token_axis import Growing, Tokens

#: The name of the new input: how many of the tokens are meant.
COUNT = "count"


@tvm.transform.module_pass(opt_level=0, name="hwptq.ReadPrompt")
class ReadPrompt:
    """step(token [1,1], position [1], caches) -> (logits, caches) becomes prompt(tokens [1,T], position [1],
    caches, count [1]): token t is at position + t, for each t < count.

    It writes their rows into the caches and gives what the step of the last of them gives, in the same bits.
    Tokens from `count` on change nothing. For an integer module, whose weights and scales are fixed, with
    caches noted by CarryCaches. tokens: T.

    Raises ValueError, which names the node, for a step that has no caches or position, that writes anything
    but the row of its position, whose results depend on rows behind it (graph/rows_behind.py), or of which it
    is not known how several tokens are computed (graph/token_axis.py).
    """

    def __init__(self, tokens: int):
        self.tokens = tokens

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        flat = rewrite(mod, lambda r, var, value: inlined(mod, r, value))
        ((gv, func),) = main_functions(flat)
        prompt = _Prompt(flat, _Step.of(flat, func), self.tokens)
        return rewrite(
            tvm.IRModule({gv: func, **_primitives(flat)}, attrs=mod.attrs),
            prompt.visit, prompt.begin, prompt.result, lambda _, __: prompt.params,
        )  # fmt: skip


def _primitives(mod: tvm.IRModule) -> dict[Any, Any]:
    return {gv: f for gv, f in mod.functions.items() if not isinstance(f, relax.Function)}


@dataclass(frozen=True)
class _Step:
    """What a step is made of. many: the nodes that rows of caches are computed from, of every token; all else
    is wanted of the last one alone."""

    func: Any
    token: Any
    position: Any
    caches: Caches
    writes: dict[Any, Write]
    many: frozenset[Any]

    @classmethod
    def of(cls, mod: tvm.IRModule, func: Any) -> _Step:
        caches = caches_of(func)
        if caches is None:
            raise ValueError("the model has no caches: only a step of a language model reads a prompt")
        if caches.position is None:
            raise ValueError("no input of one integer says which rows of the caches a step writes")
        position = func.params[caches.position]
        others = [p for p in fed_inputs(func, list(func.params)) if p != position]
        names = ", ".join(str(p.name) for p in others)
        if len(others) != 1 or int(np.prod(shape_of(others[0]))) != 1:
            raise ValueError(
                f"beside caches and position it reads {names or 'nothing'}: a step takes one token"
            )
        writes, values = cache_writes(mod, func, caches), dict(bindings(func))
        many: set[Any] = set()
        for write in writes.values():
            many |= _sources(write.new, values, set(writes))
        return cls(func, others[0], position, caches, writes, frozenset(many))


def _sources(var: Any, values: dict[Any, Any], ends: set[Any]) -> set[Any]:
    """What a tensor is computed from, itself included, back to params and `ends`."""
    found, waiting = set(), [var]
    while waiting:
        one = waiting.pop()
        if one not in found and one not in ends:
            found.add(one)
            waiting += reads(values[one]) if one in values else []
    return found


class _Prompt:
    """The new function, node by node. held: what is of each token; single: what is of the last one."""

    def __init__(self, mod: tvm.IRModule, step: _Step, tokens: int):
        self.mod, self.step, self.tokens = mod, step, tokens
        self.token = _of_several(step.token, tokens)
        self.number = str(step.position.ty.dtype)
        self.count = relax.Var(_unused(COUNT, step.func), relax.TensorType((1,), self.number))
        self.params = [self.token if p == step.token else p for p in step.func.params] + [self.count]
        self.held: dict[Any, Tokens] = {}
        self.last: dict[Any, Any] = {}

    def begin(self, r: Rewriter) -> None:
        self.growing, self.r = Growing(self.mod, r, self.tokens), r
        position, op = self.step.position, relax.op
        r.env[self.step.token] = self.token
        self.index = r.emit(op.subtract(self.count, relax.const([1], self.number)))
        along = relax.const(np.arange(self.tokens), self.number)
        places = r.emit(op.add(position, r.emit(op.minimum(along, self.index))))
        shape = shape_of(position) or (1,)
        self.held[self.step.token] = Tokens(self.token, shape_of(self.step.token), -1)
        self.held[position] = Tokens(self._shaped(places, _last(shape, self.tokens)), shape, -1)

    def _shaped(self, expr: Any, shape: tuple[int, ...]) -> Any:
        return expr if shape_of(expr) == shape else self.r.emit(relax.op.reshape(expr, shape))

    def visit(self, r: Rewriter, var: Any, value: Any) -> Any:
        if var in self.step.writes:
            return self._written(self.step.writes[var])
        sources = reads(value)
        if not any(source in self.held for source in sources):
            return r.keep(value)
        if var in self.step.many and isinstance(value, relax.Call):
            self.held[var] = self.growing.grown(var, value, [self._of(a) for a in _tensors(value)])
            return self.held[var].expr
        with r.reading({source: self._of_last(source) for source in sources if source in self.held}):
            return r.keep(value)

    def _of(self, expr: Any) -> Any:
        return self.held.get(expr, self.r.get(expr)) if isinstance(expr, relax.Var) else expr

    def _of_last(self, var: Any) -> Any:
        """A tensor of the last token, as a step has it."""
        if var not in self.last:
            x = self.held[var]
            row = self.r.emit(
                relax.op.take(x.expr, self.index, axis=len(shape_of(x.expr)) + x.axis, mode="clip")
            )
            self.last[var] = self._shaped(row, x.shape)
        return self.last[var]

    def _written(self, write: Write) -> Any:
        r, past = self.r, write.past
        shape, new = shape_of(past), self.held.get(write.new)
        rows = list(shape)
        rows[write.axis] = self.tokens
        expr = r.get(write.new) if new is None else self.growing.placed(new, write.axis)
        if shape_of(expr) != tuple(rows):
            expr = r.emit(relax.op.broadcast_to(expr, rows))
        op = WriteRows(write.axis)
        return self.growing.operator(
            op, [past, expr, self.step.position, self.count], shape, str(past.ty.dtype)
        )

    def result(self, r: Rewriter) -> Any:
        given = results(self.step.func)
        return relax.Tuple([self._of_last(var) if var in self.held else r.get(var) for var in given])


def _tensors(value: Any) -> list[Any]:
    """The tensors that a call reads, those in tuples too, in their order."""
    found = []
    for a in value.args:
        found += list(a.fields) if isinstance(a, relax.Tuple) else [a]
    return [a for a in found if isinstance(a, relax.Var | Constant)]


def _of_several(param: Any, tokens: int) -> Any:
    """The input of a token as one of so many."""
    kind = relax.TensorType(_last(shape_of(param), tokens), str(param.ty.dtype))
    return relax.Var(str(param.name), kind, param.span)


def _last(shape: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    return (*shape[:-1], tokens)


def _unused(name: str, func: Any) -> str:
    taken = {str(p.name) for p in func.params}
    while name in taken:
        name += "_"
    return name
