"""Operators that a device may compute in one kernel: what they are, and how their tensors lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tvm

from hwptq.ir.operator import Operator
from hwptq.operators.add import Add
from hwptq.operators.matmul import MatMul
from hwptq.operators.norm import LayerNorm, RmsNorm
from hwptq.operators.real_norm import RealLayerNorm, RealRmsNorm
from hwptq.operators.rescale import Rescale
from hwptq.operators.softmax import Softmax
from hwptq.tir.kernel import TensorType


@dataclass(frozen=True)
class View:
    """A tensor as it lies in another one that is stored: element strides of its axes, and its first one."""

    stored: TensorType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    first: int = 0


@dataclass(frozen=True)
class AttentionJoin:
    """mean(softmax(scores(q, k), hidden), v): q [..., M,K], k [..., K,N], v [..., N,D] -> [..., M,D]."""

    scores: MatMul
    softmax: Softmax
    mean: MatMul
    q: View
    k: View
    v: View
    hidden: TensorType | None
    out: View


@dataclass(frozen=True)
class NormJoin:
    """norm(add(x, other)), and that by rescale; the sum and the norm are stored where others read them."""

    add: Add | None
    norm: LayerNorm | RmsNorm
    rescale: Rescale | None
    x: TensorType
    other: TensorType | None
    keeps_sum: bool
    keeps: bool
    out: str  # the dtype of the norm

    @property
    def norm_input(self) -> str:
        """The dtype that the norm reads."""
        return self.x.dtype if self.add is None else self.add.out


@dataclass(frozen=True)
class RowsJoin:
    """RowQuantize and RowScale of norm(x + other); the sum and the norm are stored where others read them."""

    adds: bool
    norm: RealLayerNorm | RealRmsNorm | None
    x: TensorType
    keeps_sum: bool
    keeps: bool


@dataclass(frozen=True)
class Operand:
    """What a node of an ElementsJoin reads: as it lies in an input of the join, or in what a node gives."""

    source: int
    of_node: bool
    view: View


@dataclass(frozen=True)
class ElementsNode:
    """An operator that is computed element by element; a concatenation along `axis` where there is none."""

    op: Operator | None
    operands: tuple[Operand, ...]
    out: TensorType
    axis: int = 0


@dataclass(frozen=True)
class ElementsJoin:
    """Operators, each behind those that it reads, of which each but the last is read by one other alone."""

    inputs: tuple[TensorType, ...]
    nodes: tuple[ElementsNode, ...]


@dataclass(frozen=True)
class Joined:
    """A kernel: its function takes the tensors of the join, then `constants`, then its results."""

    func: tvm.tirx.PrimFunc
    constants: Sequence[np.ndarray]
    results: Sequence[TensorType]
    name: str
