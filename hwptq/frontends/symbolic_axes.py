"""Symbolic axes of a model's inputs: the batch is 1, the others have the sizes that the user gives."""

from __future__ import annotations

import ast
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hwptq.errors import InputError, UnsupportedError

_LARGEST = 2**31 - 1  # size of an axis
_NO_NAMES = ("", "?")  # what exporters write for an axis without a name
_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True)
class _SymbolicAxis:
    number: int
    place: str  # INPUT.AXIS
    symbol: str  # its name in the model, if any
    option: str  # what an error tells the user to give: the symbol, if it stands for this axis only

    def size(self, axes: Mapping[str, int], others: Mapping[str, int]) -> int | None:
        """Its size, where `axes` gives one: that of the place before that of the symbol, and what follows
        from `others` where the symbol is a sum of them or the like."""
        given = axes.get(self.place) or axes.get(self.symbol)
        return given or _value(self.symbol, others) or (1 if self.number == 0 else None)

    @property
    def names(self) -> set[str]:
        """What it follows from: the names in its symbol, if that is more than one name."""
        tree = _parsed(self.symbol)
        if tree is None or isinstance(tree, ast.Name):
            return set()
        return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def bound_shapes(
    inputs: Mapping[str, Sequence[int | str]], axes: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """The shape of every input, by name. inputs: the size of each axis, or its name ("" where it has none);
    axes: sizes of symbolic axes, by their name or as INPUT.AXIS.

    The first axis of an input is 1 if it is symbolic and not given. Raises UnsupportedError for others that
    are not given, InputError for sizes that name no symbolic axis.
    """
    symbolic = {name: _symbolic_axes(name, dims) for name, dims in inputs.items()}
    every = [axis for found in symbolic.values() for axis in found]
    _check_names(axes, every)
    others = {axis.symbol: 1 for axis in every if axis.number == 0} | dict(axes)
    _check_sizes(symbolic, axes, others)
    return {name: _shape(dims, symbolic[name], axes, others) for name, dims in inputs.items()}


def _symbolic_axes(name: str, dims: Sequence[int | str]) -> list[_SymbolicAxis]:
    symbols = Counter(dims)
    found = []
    for number, dim in enumerate(dims):
        if isinstance(dim, str):
            place, clear = f"{name}.{number}", symbols[dim] == 1 and dim not in _NO_NAMES and " " not in dim
            found.append(_SymbolicAxis(number, place, dim, dim if clear else place))
    return found


def _parsed(symbol: str) -> ast.expr | None:
    try:
        return ast.parse(symbol, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(symbol: str, sizes: Mapping[str, int]) -> int | None:
    """Of an expression of known names, as exporters call the axis of a mask: "past + new"; None where it is
    none, or has others."""
    tree = _parsed(symbol)
    try:
        value = 0 if tree is None or isinstance(tree, ast.Name) else _computed(tree, sizes)
    except (KeyError, ArithmeticError, RecursionError):
        return None
    return value if 0 < value <= _LARGEST else None


def _computed(node: ast.expr, sizes: Mapping[str, int]) -> int:
    """Raises KeyError for a name without a size, and what is no arithmetic."""
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return _ARITHMETIC[type(node.op)](_computed(node.left, sizes), _computed(node.right, sizes))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return sizes[node.id if isinstance(node, ast.Name) else ""]


def _check_names(axes: Mapping[str, int], symbolic: Sequence[_SymbolicAxis]) -> None:
    for name, size in axes.items():
        if size > _LARGEST:
            raise InputError(f"--axis {name}={size}: give at most {_LARGEST}")
        if not any(name in (axis.place, axis.symbol) for axis in symbolic):
            there = ", ".join(dict.fromkeys(axis.option for axis in symbolic))
            raise InputError(f"--axis {name}: no symbolic axis has this name; there is {there or 'none'}")


def _check_sizes(
    symbolic: Mapping[str, Sequence[_SymbolicAxis]], axes: Mapping[str, int], others: Mapping[str, int]
) -> None:
    """Raise UnsupportedError for all axes without a size at once; those that follow from others are not
    asked for."""
    lacking = {
        name: missing
        for name, found in symbolic.items()
        if (missing := [axis for axis in found if not axis.size(axes, others)])
    }
    if not lacking:
        return
    every = [axis for missing in lacking.values() for axis in missing]
    known = {axis.symbol for axis in every if not axis.names} | others.keys()
    asked = [axis for axis in every if not axis.names or not axis.names <= known]
    options = " ".join(dict.fromkeys(f"--axis {axis.option}=SIZE" for axis in asked))
    name, missing = next(iter(lacking.items()))
    numbers = " and ".join(str(axis.number) for axis in missing)
    which = f"axis {numbers} is" if len(missing) == 1 else f"axes {numbers} are"
    more = f", as are axes of {len(lacking) - 1} more inputs" if len(lacking) > 1 else ""
    raise UnsupportedError(f"input {name!r}: {which} symbolic{more}; give the size: {options}")


def _shape(
    dims: Sequence[int | str],
    symbolic: Sequence[_SymbolicAxis],
    axes: Mapping[str, int],
    others: Mapping[str, int],
) -> tuple[int, ...]:
    sizes = {axis.number: axis.size(axes, others) for axis in symbolic}
    return tuple(int(sizes.get(number) or dim) for number, dim in enumerate(dims))
