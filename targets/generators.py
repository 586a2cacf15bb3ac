"""What the code generators behind the kinds of TVM targets take: a table, which others may add to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwptq.formats import BFLOAT16, E4M3, INT8, INT12, INT16, Pair, formats


@dataclass(frozen=True)
class Generator:
    """`pairs`: the (activation, weight) dtypes of layers that there is code for.

    `plain`: what a descriptor can say of an operator without weights, which takes the dtypes of the tensors
    beside it. `beside`: pairs of operators without weights that no layer takes.
    """

    pairs: Callable[[], Sequence[Pair]]
    plain: tuple[Pair, ...] = ((INT8.name, INT8.name),)
    beside: tuple[Pair, ...] = ()


#: By kind of TVM target. Of other kinds nothing is known, and nothing is refused.
GENERATORS: dict[str, Generator] = {}


def _of_integers() -> list[Pair]:
    """Signed integers, the weights in at most 8 bits, and in no more than activations."""
    by_bits = sorted(formats(), key=lambda f: -f.bits)
    signed = [f for f in by_bits if f.quantized and not f.is_float and f.has_zero]
    return [
        (activation.name, weight.name)
        for activation in signed
        for weight in signed
        if weight.bits <= min(activation.bits, INT8.bits)
    ]


def _of_tensor_cores() -> list[Pair]:
    return [(f.name, f.name) for f in (E4M3, INT8, BFLOAT16)]


GENERATORS["llvm"] = Generator(_of_integers)
#: Norms and softmax read int16, tables int12.
_WIDE = tuple((wide.name, INT8.name) for wide in (INT12, INT16))
GENERATORS["cuda"] = Generator(
    _of_tensor_cores, ((E4M3.name, E4M3.name), (INT8.name, INT8.name)), beside=_WIDE
)
