"""Inputs that always have one value (a sample rate, a switch between branches) become constants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from hwptq.errors import InputError


def fix_inputs(
    proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], fixed: Mapping[str, float]
) -> dict[str, tuple[int, ...]]:
    """Make constants of the inputs named in `fixed`, each filled with its value; the model is changed.

    shapes: of every input, by name. Returns those of the inputs that are left. Raises InputError for a name
    that no input has, for a value that an input can't hold, and where no input would be left.
    """
    for name in fixed:
        if name not in shapes:
            raise InputError(f"--fix {name}: the model has no such input; it has {', '.join(shapes)}")
    left = {name: shape for name, shape in shapes.items() if name not in fixed}
    if not left:
        raise InputError(f"--fix {' '.join(fixed)}: no input is left; leave out one of them")
    for value in [i for i in proto.graph.input if i.name in fixed]:
        proto.graph.input.remove(value)
        filled = np.full(shapes[value.name], _held(value, fixed[value.name]))
        proto.graph.initializer.append(numpy_helper.from_array(filled, value.name))
    return left


def _held(value: onnx.ValueInfoProto, given: float) -> np.ndarray:
    """The value in the input's type."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    with np.errstate(all="ignore"):
        held = np.asarray(given).astype(dtype)
    rounds = dtype.kind not in "biu"
    if not (np.isfinite(float(held)) and (rounds or float(held) == given)):
        raise InputError(
            f"--fix {value.name}={given:g}: the input holds {dtype.name}, which has no such value"
        )
    return held
