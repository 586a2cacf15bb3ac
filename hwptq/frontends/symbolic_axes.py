"""Symbolic axes of a model's inputs: the batch is 1, the others have the sizes that the user gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwptq.errors import InputError, UnsupportedError

_LARGEST = 2**31 - 1  # size of an axis
_NO_NAMES = ("", "?")  # what exporters write for an axis without a name


@dataclass(frozen=True)
class _SymbolicAxis:
    number: int
    place: str  # INPUT.AXIS
    symbol: str  # its name in the model, if any
    option: str  # what an error tells the user to give: the symbol, if it stands for this axis only

    def size(self, axes: Mapping[str, int]) -> int | None:
        """Its size, where `axes` gives one: that of the place before that of the symbol."""
        return axes.get(self.place) or axes.get(self.symbol) or (1 if self.number == 0 else None)


def bound_shapes(
    inputs: Mapping[str, Sequence[int | str]], axes: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """The shape of every input, by name. inputs: the size of each axis, or its name ("" where it has none);
    axes: sizes of symbolic axes, by their name or as INPUT.AXIS.

    The first axis of an input is 1 if it is symbolic and not given. Raises UnsupportedError for others that
    are not given, InputError for sizes that name no symbolic axis.
    """
    symbolic = {name: _symbolic_axes(name, dims) for name, dims in inputs.items()}
    _check_names(axes, [axis for found in symbolic.values() for axis in found])
    return {name: _shape(name, dims, symbolic[name], axes) for name, dims in inputs.items()}


def _symbolic_axes(name: str, dims: Sequence[int | str]) -> list[_SymbolicAxis]:
    symbols = Counter(dims)
    found = []
    for number, dim in enumerate(dims):
        if isinstance(dim, str):
            place, clear = f"{name}.{number}", symbols[dim] == 1 and dim not in _NO_NAMES
            found.append(_SymbolicAxis(number, place, dim, dim if clear else place))
    return found


def _check_names(axes: Mapping[str, int], symbolic: Sequence[_SymbolicAxis]) -> None:
    for name, size in axes.items():
        if size > _LARGEST:
            raise InputError(f"--axis {name}={size}: give at most {_LARGEST}")
        if not any(name in (axis.place, axis.symbol) for axis in symbolic):
            there = ", ".join(dict.fromkeys(axis.option for axis in symbolic))
            raise InputError(f"--axis {name}: no symbolic axis has this name; there is {there or 'none'}")


def _shape(
    name: str, dims: Sequence[int | str], symbolic: Sequence[_SymbolicAxis], axes: Mapping[str, int]
) -> tuple[int, ...]:
    missing = [axis for axis in symbolic if not axis.size(axes)]
    if missing:
        numbers = " and ".join(str(axis.number) for axis in missing)
        which = f"axis {numbers} is" if len(missing) == 1 else f"axes {numbers} are"
        options = " ".join(f"--axis {axis.option}=SIZE" for axis in missing)
        raise UnsupportedError(f"input {name!r}: {which} symbolic; give the size: {options}")
    sizes = {axis.number: axis.size(axes) for axis in symbolic}
    return tuple(int(sizes.get(number) or dim) for number, dim in enumerate(dims))
