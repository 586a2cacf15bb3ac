"""Weights, bias, multiplier and shift in the order in which a kernel reads them. All numpy, at compile time.

Output channels are grouped into vectors of `lanes`. Where they do not divide, the last vector overlaps the
one before it: 10 channels on 8 lanes -> vectors 0…7 and 2…9. Fewer channels than lanes -> one vector whose
surplus lanes hold zeros.
"""

from __future__ import annotations

import numpy as np

from hwptq.quant.fixed_point import MAX_SHIFT


def vector_count(co: int, lanes: int) -> int:
    """Vectors that cover `co` channels."""
    return -(-co // lanes)


def channels_of(co: int, lanes: int) -> np.ndarray:
    """The channel in each lane, int [vectors, lanes]; -1 in a surplus lane."""
    if co < lanes:
        return np.where(np.arange(lanes) < co, np.arange(lanes), -1)[np.newaxis]
    first = np.minimum(np.arange(vector_count(co, lanes)) * lanes, co - lanes)
    return first[:, np.newaxis] + np.arange(lanes)


def pack_channels(values: np.ndarray, lanes: int, surplus: int = 0) -> np.ndarray:
    """[O] -> [vectors * lanes] of the same dtype, `surplus` in the surplus lanes."""
    channels = channels_of(len(values), lanes).reshape(-1)
    return np.where(channels < 0, values.dtype.type(surplus), values[channels])


def pack_scales(multiplier: np.ndarray, shift: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Multiplier and shift [O] -> [vectors * lanes]; surplus lanes get a valid pair."""
    return pack_channels(multiplier, lanes, 2**30), pack_channels(shift, lanes, MAX_SHIFT)


def pack_weights(weight: np.ndarray, run: int, lanes: int, k: int, dtype: str = "int8") -> np.ndarray:
    """int8 [O, ...] -> `dtype` [vectors, runs * ceil(run / k), lanes * k].

    Each channel's weights are runs of `run` elements that stand side by side in the image; a run is padded
    with zeros to a multiple of k. One row of the result is the weight operand of one instruction.
    """
    co = weight.shape[0]
    runs = weight.reshape(co, -1, run)
    padded = np.pad(runs, ((0, 0), (0, 0), (0, -run % k)))
    groups = padded.reshape(co, -1, k)
    channels = channels_of(co, lanes)
    chosen = np.where((channels < 0)[:, :, np.newaxis, np.newaxis], 0, groups[channels])
    return np.ascontiguousarray(
        chosen.transpose(0, 2, 1, 3).reshape(len(channels), -1, lanes * k), dtype=dtype
    )
