"""The shapes of an ONNX graph's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from ..symbolic_axes import bound_shapes


def input_shapes(
    inputs: Sequence[onnx.ValueInfoProto], axes: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """The shape of every input, by name. `axes`, and what is raised: see bound_shapes."""
    return bound_shapes({value.name: _dims(value) for value in inputs}, axes)


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else dim.dim_param for dim in dims]
