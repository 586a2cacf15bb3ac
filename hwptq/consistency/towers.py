"""Embeddings of pairs: what two compiled models give for them, or the float models they were made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwptq.artifact import CompiledModel, load
from hwptq.errors import InputError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.frontend import read_model
from hwptq.no_device import check_no_device

from .depth import noise_by_depth
from .measures import Consistency, consistency

Track = Callable[[Iterable[Any], int | None], Iterable[Any]]


def compare_towers(
    folders: tuple[Path, Path], pairs: Path, models: tuple[Path, Path] | None = None,
    samples: int | None = None, track: Track = lambda items, total: items,
) -> Consistency:  # fmt: skip
    """The consistency of two output folders of `hwptq compile` on `pairs`.

    pairs: an .npz of the inputs of both by name, or with "a." and "b." before it where names are the same;
    row i of the one belongs to row i of the other. models: the float models, in the same order. samples: the
    first so many pairs. Raises InputError.
    """
    arrays = _arrays(pairs)
    embeddings, exact, depth = [], [], []
    for i, folder in enumerate(folders):
        model = load(folder)
        depth.append(noise_by_depth(model.report.get("layers", ())))
        rows = list(_rows(model, arrays, "ab"[i], pairs, samples))
        embeddings.append(_stacked(model.run_stream(track(rows, len(rows))), folder))
        if models is not None:
            exact.append(_float(models[i], model, rows, track))
    found = (embeddings[0], embeddings[1])
    if len({len(e) for e in found}) > 1 or len(found[0]) < 2:
        raise InputError(f"{pairs}: {len(found[0])} and {len(found[1])} rows: give two pairs or more")
    if found[0].shape[1] != found[1].shape[1]:
        raise InputError(
            f"embeddings of {found[0].shape[1]} and of {found[1].shape[1]} values can't be compared"
        )
    compared = consistency(found, (exact[0], exact[1]) if models else None)
    return replace(compared, depth=(depth[0], depth[1]))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(check_no_device(path), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: no .npz of arrays ({error})") from error


def _rows(
    model: CompiledModel, arrays: Mapping[str, np.ndarray], tower: str, pairs: Path, samples: int | None
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """The inputs of one tower, pair by pair, in the shape and dtype that it takes."""
    columns = {}
    for tensor in model.inputs:
        key = next((k for k in (f"{tower}.{tensor.name}", tensor.name) if k in arrays), None)
        if key is None:
            known = ", ".join(arrays)
            raise InputError(
                f"{pairs}: no array for input {tensor.name!r} of {model.folder}; it holds {known}"
            )
        rows = arrays[key][:samples]
        if rows.shape[1:] != tuple(tensor.shape)[1:]:
            wanted = list(tensor.shape)[1:]
            raise InputError(
                f"{pairs}: {key!r} has rows of {list(rows.shape[1:])}, {model.folder} takes {wanted}"
            )
        columns[tensor.name] = rows.astype(tensor.numpy_dtype)
    if len({len(rows) for rows in columns.values()}) != 1:
        raise InputError(f"{pairs}: arrays of different lengths for {model.folder}")
    for i in range(len(next(iter(columns.values())))):
        yield {name: rows[i : i + 1] for name, rows in columns.items()}


def _stacked(outputs: Iterable[Mapping[str, np.ndarray]], folder: Path) -> np.ndarray:
    """The first output of every pair, [N, D]."""
    found = [next(iter(out.values())).reshape(1, -1) for out in outputs]
    if not found:
        raise InputError(f"{folder}: no pairs to run it on")
    return np.concatenate(found)


def _float(path: Path, model: CompiledModel, rows: list[dict[str, np.ndarray]], track: Track) -> np.ndarray:
    """What the float model gives; axes of free size get those of the compiled one."""
    sizes = {f"{t.name}.{axis}": int(n) for t in model.inputs for axis, n in enumerate(t.shape) if axis}
    imported = read_model(path, _free(path, sizes))
    if more := imported.inputs.keys() - {t.name for t in model.inputs}:
        raise InputError(
            f"{path}: the program lacks its input {min(more)!r} (--fix): make it a constant there"
        )
    interpreter = Interpreter(imported.module)
    outputs = (interpreter.run(row)[0].reshape(1, -1) for row in track(rows, len(rows)))
    return np.concatenate(list(outputs))


def _free(path: Path, sizes: Mapping[str, int]) -> dict[str, int]:
    """Of sizes by INPUT.AXIS, those of axes that the file leaves open."""
    import onnx

    try:
        inputs = onnx.load(str(path), load_external_data=False).graph.input
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read ({error})") from error
    open_axes = {
        f"{i.name}.{axis}": d.dim_param
        for i in inputs
        for axis, d in enumerate(i.type.tensor_type.shape.dim)
        if d.dim_param
    }
    return {open_axes[key]: size for key, size in sizes.items() if key in open_axes}
