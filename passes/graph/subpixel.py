"""A transposed convolution as an ordinary one: which tap of its kernel falls where, along one axis.

With stride s, padding p and dilation d, pixel o of the output is the sum over k of x[(o + p - k d) / s] w[k],
where that is a whole number. Written o + crop = s q + r, phase r is a convolution with stride 1, in which
x[q + offset] meets the k with k d = r + p - crop - s offset, if there is one.
Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PhaseAxis:
    """taps[r][j]: the element of the kernel that tap j of phase r is, -1 for a zero; before, after: padding.

    The phases of `crop` output pixels before the first one are computed too.
    """

    taps: tuple[tuple[int, ...], ...]
    before: int
    after: int
    crop: int


def phase_axis(size: int, kernel: int, stride: int, padding: int, dilation: int, out: int) -> PhaseAxis:
    """The phases of an axis of `size` pixels whose output has `out`: those with the fewest taps."""
    found = [_with_crop(crop, size, kernel, stride, padding - crop, dilation, out) for crop in range(stride)]
    return min(found, key=lambda axis: len(axis.taps[0]))


def _with_crop(
    crop: int, size: int, kernel: int, stride: int, padding: int, dilation: int, out: int
) -> PhaseAxis:
    ends = [(r + padding - k * dilation, r, k) for r in range(stride) for k in range(kernel)]
    place = {(r, end // stride): k for end, r, k in ends if end % stride == 0}
    low = min(0, *(offset for _, offset in place))
    high = max(offset for _, offset in place)
    taps = tuple(tuple(place.get((r, o), -1) for o in range(low, high + 1)) for r in range(stride))
    pixels = -(-(out + crop) // stride)
    return PhaseAxis(taps, -low, max(0, pixels + high - size), crop)


def phase_weights(weight: np.ndarray, rows: PhaseAxis, columns: PhaseAxis) -> np.ndarray:
    """A kernel [I,O,KH,KW] as one [SH*SW*O,I,TH,TW]: phase by phase, each with all channels."""
    channels_in, channels, *_ = weight.shape
    padded = np.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))  # element -1 is the zero
    phases = [
        padded[:, :, np.array(row)[:, None], np.array(column)].transpose(1, 0, 2, 3)
        for row in rows.taps
        for column in columns.taps
    ]
    shape = (len(phases) * channels, channels_in, len(rows.taps[0]), len(columns.taps[0]))
    return np.stack(phases).reshape(shape)
