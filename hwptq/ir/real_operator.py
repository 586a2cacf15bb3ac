"""Operators on real numbers that Relax has none for: the importer makes them, to be quantized later.

Each is a PrimFunc on float32 that carries the operator as JSON, so that a rule (lowering/rules.py) may lower
it as it lowers an operator of Relax, under the name "real.KIND". Left in float it is code as any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import tvm

from hwptq.tir.builder import TEMPLATE, primfunc
from hwptq.tir.kernel import TensorType

from .dataflow import op_name

#: The attribute of a PrimFunc that holds the operator.
REAL = "hwptq.real"
_BY_KIND: dict[str, type[RealOperator]] = {}


@dataclass(frozen=True)
class RealOperator:
    """The base of them; a subclass says in its docstring which tensors it takes."""

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        _BY_KIND[cls.kind] = cls

    def emit(self, inputs: Sequence[TensorType], out: TensorType) -> Callable[..., None]:
        """What emits its code from its tensors and the result, as Flat."""
        raise NotImplementedError

    def macs(self, inputs: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
        """Multiply-accumulates, by the shapes of its tensors and of its result."""
        return 0

    def primfunc(self, inputs: Sequence[TensorType], out: TensorType) -> tvm.tirx.PrimFunc:
        """The PrimFunc (inputs…, out)."""
        attributes = {REAL: json.dumps({"kind": self.kind, **asdict(self)}), TEMPLATE: "portable"}
        return primfunc([*inputs, out], attributes, self.emit(inputs, out))


def real_operator(mod: tvm.IRModule, value: Any) -> RealOperator | None:
    """The operator on real numbers that a call_tir stands for, or None."""
    if op_name(value) != "call_tir":
        return None
    attrs = mod[value.args[0]].attrs
    if not attrs or REAL not in attrs:
        return None
    values = json.loads(str(attrs[REAL]))
    cls = _BY_KIND[values.pop("kind")]
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
