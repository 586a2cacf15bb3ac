"""An operator with the tensors it is given: what a kernel is chosen for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from hwptq.ir.operator import Operator
from hwptq.tir.kernel import TensorType

from .epilogue import Follower

#: Fields of operators that are numbers of the arithmetic, which take no time.
_VALUES = [
    "in_zero_point",
    "out_zero_point",
    "a_zero_point",
    "b_zero_point",
    "lo",
    "hi",
    "multiplier",
    "shift",
]


@dataclass(frozen=True, eq=False)
class Layer:
    """An operator, its activations, its constants, its result, and what its kernel computes behind it.

    The other operands of the followers come last among the activations.
    """

    op: Operator
    activations: tuple[TensorType, ...]
    constants: tuple[np.ndarray, ...]
    out: TensorType
    followers: tuple[Follower, ...] = ()

    @property
    def shape(self) -> str:
        """What the time of a kernel depends on, as a line of JSON: the same for layers of equal cost."""
        fields = {"kind": self.op.kind, **asdict(self.op)}
        tensors = [asdict(t) for t in (*self.activations, self.out)]
        found = {
            "op": {name: value for name, value in fields.items() if name not in _VALUES},
            "tensors": tensors,
            "constants": [[list(c.shape), str(c.dtype)] for c in self.constants],
            "followers": [[f.op.kind, f.second] for f in self.followers],
        }
        return json.dumps(found, sort_keys=True)
