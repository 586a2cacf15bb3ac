"""golden.npz: inputs, under their names whatever these are, and the outputs of the emitted code."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np


def output_keys(inputs: Collection[str], count: int) -> list[str]:
    """The keys of outputs: output_0 …, each with underscores behind where an input is called so."""
    keys = []
    for i in range(count):
        key = f"output_{i}"
        while key in inputs or key in keys:
            key += "_"
        keys.append(key)
    return keys


def joined(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of one sample each, [1, ...] or of rank 0, along the first axis."""
    return np.concatenate([np.atleast_1d(array) for array in samples])


def write_golden(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz. np.savez takes the names for its own arguments, such as `file`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
