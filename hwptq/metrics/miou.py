"""miou: how well segments cover those of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metric import NamedMetric, integers

_VOID = 255  # pixels of no class, as in PASCAL VOC and Cityscapes


def miou(outputs: Sequence[np.ndarray], labels: np.ndarray | None, exact: Sequence[np.ndarray]) -> float:
    """Percent: intersection over union of all samples together, the mean of the classes that occur.

    outputs[0]: scores [N, classes, H, W] or classes, int [N, H, W]; labels: int [N, H, W], 255 for no class.
    """
    found, wanted = outputs[0], integers(labels, "the class of each pixel")
    if found.ndim == 4:
        found = found.argmax(axis=1)
    if found.shape != wanted.shape:
        raise ValueError(
            f"the first output is {list(outputs[0].shape)}, the labels are {list(wanted.shape)}: "
            f"give outputs [N, classes, H, W] or [N, H, W] and labels [N, H, W]"
        )
    counted = wanted != _VOID
    a, b = found[counted].astype(np.int64), wanted[counted]
    if not a.size:
        raise ValueError(f"all pixels of the labels are {_VOID}, of no class")
    shares = [np.sum((a == c) & (b == c)) / np.sum((a == c) | (b == c)) for c in np.union1d(a, b)]
    return 100 * float(np.mean(shares))


METRIC = NamedMetric("miou", miou)
