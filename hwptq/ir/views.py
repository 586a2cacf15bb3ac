"""What a constant holds, without a copy of it."""

from __future__ import annotations

from typing import Any

import numpy as np


def view(tensor: Any) -> np.ndarray:
    """The values of a tensor of TVM, not to be written to; a copy where numpy lacks the dtype."""
    try:
        array = np.from_dlpack(tensor)
    except (BufferError, RuntimeError, TypeError):  # bfloat16, fp8
        array = tensor.numpy()
    array.flags.writeable = False
    return array
