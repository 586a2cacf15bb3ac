"""Gradients through means, sums, norms and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from .rule import Gradient, Place, derivative, summed_to


@derivative("sum")
def _sum(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [np.broadcast_to(_kept(place, g), place.inputs[0].shape)]


@derivative("mean")
def _mean(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    shape = place.inputs[0].shape
    count = prod(shape[a] for a in place.axes(place.call.attrs.axis))
    return [np.broadcast_to(_kept(place, g) / np.float32(count), shape)]


def _kept(place: Place, g: np.ndarray) -> np.ndarray:
    """A gradient with the axes that were summed over, of size 1."""
    return np.expand_dims(g, place.axes(place.call.attrs.axis)) if g.ndim < place.inputs[0].ndim else g


@derivative("nn.softmax")
def _softmax(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    y, axis = place.output, int(place.call.attrs.axis)
    along = y * g
    return [along - y * along.sum(axis=axis, keepdims=True)]


@derivative("nn.rms_norm")
def _rms_norm(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    x, gamma = place.inputs
    axes = place.axes(place.call.attrs.axes)
    eps = np.float32(place.call.attrs.epsilon)
    inverse = 1 / np.sqrt(np.mean(x * x, axis=axes, keepdims=True) + eps)
    unit, inner = x * inverse, g * gamma
    along = np.mean(inner * unit, axis=axes, keepdims=True)
    return [inverse * (inner - unit * along), summed_to(g * unit, gamma.shape) if place.needed[1] else None]


@derivative("nn.layer_norm")
def _layer_norm(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    x, gamma, beta = place.inputs
    axes = place.axes(place.call.attrs.axes)
    eps = np.float32(place.call.attrs.epsilon)
    centered = x - x.mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(np.mean(centered * centered, axis=axes, keepdims=True) + eps)
    unit, inner = centered * inverse, g * gamma
    along = np.mean(inner * unit, axis=axes, keepdims=True)
    flat = inner.mean(axis=axes, keepdims=True)
    return [
        inverse * (inner - flat - unit * along),
        summed_to(g * unit, gamma.shape) if place.needed[1] else None,
        summed_to(g, beta.shape) if place.needed[2] else None,
    ]
