"""Gradients through functions of single elements and of pairs of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .rule import Gradient, Place, derivative, summed_to

_TWO_OVER_ROOT_PI = np.float32(2 / np.sqrt(np.pi))
_NORMAL = np.float32(1 / np.sqrt(2 * np.pi))
_TANH, _CUBIC = np.float32(np.sqrt(2 / np.pi)), np.float32(0.044715)


def _pair(place: Place, left: Callable[[], np.ndarray], right: Callable[[], np.ndarray]) -> list[Gradient]:
    """What goes to each of two inputs that were broadcast."""
    found = zip(place.needed, (left, right), place.inputs, strict=True)
    return [summed_to(make(), x.shape) if needed else None for needed, make, x in found]


@derivative("add")
def _add(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return _pair(place, lambda: g, lambda: g)


@derivative("subtract")
def _subtract(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return _pair(place, lambda: g, lambda: -g)


@derivative("multiply")
def _multiply(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    a, b = place.inputs
    return _pair(place, lambda: g * b, lambda: g * a)


@derivative("divide")
def _divide(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    b = place.inputs[1]
    return _pair(place, lambda: g / b, lambda: -g * place.output / b)


@derivative("maximum")
def _maximum(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    a, b = place.inputs
    return _pair(place, lambda: g * (a >= b), lambda: g * (a < b))


@derivative("minimum")
def _minimum(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    a, b = place.inputs
    return _pair(place, lambda: g * (a <= b), lambda: g * (a > b))


@derivative("power")
def _power(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    a, b = place.inputs
    return _pair(place, lambda: g * b * a ** (b - 1), lambda: g * place.output * np.log(a))


@derivative("where")
def _where(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    chosen, a, b = place.inputs
    found: list[Gradient] = [None]
    found.append(summed_to(np.where(chosen, g, 0), a.shape) if place.needed[1] else None)
    found.append(summed_to(np.where(chosen, 0, g), b.shape) if place.needed[2] else None)
    return found


@derivative("negative")
def _negative(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [-g]


@derivative("square")
def _square(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g * 2 * place.inputs[0]]


@derivative("sqrt")
def _sqrt(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g / (2 * place.output)]


@derivative("rsqrt")
def _rsqrt(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g * place.output**3 / np.float32(-2)]


@derivative("exp")
def _exp(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g * place.output]


@derivative("tanh")
def _tanh(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g * (1 - place.output * place.output)]


@derivative("erf")
def _erf(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    x = place.inputs[0]
    return [g * _TWO_OVER_ROOT_PI * np.exp(-x * x)]


@derivative("sigmoid")
def _sigmoid(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g * place.output * (1 - place.output)]


@derivative("nn.silu")
def _silu(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    x = place.inputs[0]
    with np.errstate(over="ignore"):
        s = 1 / (1 + np.exp(-x))
    return [g * (s + place.output * (1 - s))]


@derivative("nn.gelu")
def _gelu(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    """x P(x) with P that of the normal distribution: P(x) + x p(x)."""
    x = place.inputs[0]
    below = np.divide(place.output, x, out=np.full_like(x, 0.5), where=x != 0)
    return [g * (below + x * _NORMAL * np.exp(-x * x / 2))]


@derivative("nn.gelu_tanh")
def _gelu_tanh(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    """x (1 + tanh(c (x + a x^3))) / 2."""
    x = place.inputs[0]
    t = np.tanh(_TANH * (x + _CUBIC * x**3))
    inner = _TANH * (1 + 3 * _CUBIC * x * x)
    return [g * ((1 + t) + x * (1 - t * t) * inner) / 2]


@derivative("nn.relu")
def _relu(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g * (place.inputs[0] > 0)]


@derivative("clip")
def _clip(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g * (place.output == place.inputs[0])]


@derivative("astype", "builtin.stop_lift_params")
def _same(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g]
