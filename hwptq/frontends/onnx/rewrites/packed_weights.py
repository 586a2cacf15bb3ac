"""Weights of a few bits that ONNX Runtime has packed, a scale for each block, as codes behind a DQ."""

from __future__ import annotations

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .code_parts import CodeParts
from .parts import given
from .surroundings import Surroundings, attribute

#: Holds the difference of two codes of 8 bits.
_DIFFERENCE = np.int16


def matmul_nbits(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A product with a matrix [K, N] in blocks along K: of (code - zero point) * scale.

    Where g_idx says which block each input is of, the inputs of a block become neighbours; blocks of unequal
    length can't, and the values are real. Its accuracy_level, how ONNX Runtime may round the other operand,
    is no part of the model.
    """
    depth, columns = (int(attribute(node, key)) for key in ("K", "N"))
    bits, block = int(attribute(node, "bits", 4)), int(attribute(node, "block_size"))
    if 8 % bits:
        raise UnsupportedError(f"node {node.name!r} ({node.op_type}): {bits} bits; use 2, 4 or 8")
    packed, scales = (_constant(around, node, i) for i in (1, 2))
    blocks = -(-depth // block)
    scales = scales.reshape(columns, blocks)
    zeros = _zeros(around, node, 3, bits, (columns, blocks))
    of_input = _block_of_input(around, node, depth, block)
    centred = _unpacked(packed.reshape(columns, -1), bits)[:, :depth] - zeros[:, of_input]
    order = np.argsort(of_input, kind="stable")
    parts, read = CodeParts(around, node), node.input[0]
    if np.array_equal(of_input[order], np.arange(depth) // block):
        if np.any(order != np.arange(depth)):
            read = parts.op("Gather", [read, parts.constant(order, np.int64)], axis=-1)
        weight = _blocked(parts, centred[:, order].T, scales.T, 0, block)
    else:
        weight = parts.constant((centred * scales[:, of_input]).T)
    if given(node, 5):
        parts.op("Add", [parts.layer("MatMul", [read, weight]), node.input[5]], node.output[0])
    else:
        parts.layer("MatMul", [read, weight], node.output[0])
    return parts.nodes


def _block_of_input(around: Surroundings, node: onnx.NodeProto, depth: int, block: int) -> np.ndarray:
    """The block that each of the inputs has its scale from: g_idx, else neighbours are of one."""
    if not given(node, 4):
        return np.arange(depth) // block
    found = _constant(around, node, 4).reshape(-1)[:depth]
    if len(found) < depth or found.min() < 0 or found.max() >= -(-depth // block):
        raise UnsupportedError(f"node {node.name!r} ({node.op_type}): g_idx names no block for some inputs")
    return found


def gather_block_quantized(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Rows of a table whose codes are in blocks along another axis; bytes may hold two codes of 4 bits."""
    data, scales = _constant(around, node, 0), np.asarray(_constant(around, node, 2))
    bits, block = int(attribute(node, "bits", 4)), int(attribute(node, "block_size", 128))
    axis = int(attribute(node, "quantize_axis", 1)) % data.ndim
    gathered = int(attribute(node, "gather_axis", 0)) % data.ndim
    # codes of 4 bits that the file doesn't pack are bytes by now too: those of all blocks, and small
    every = -(-data.shape[axis] // block) == scales.shape[axis] and data.max(initial=0) < 2**bits
    packed = data.dtype == np.uint8 and bits < 8 and not every
    if packed and axis != data.ndim - 1:
        raise UnsupportedError(
            f"node {node.name!r} ({node.op_type}): packed along another axis than the last"
        )
    codes = _unpacked(data, bits) if packed else data.astype(_DIFFERENCE)
    if given(node, 3) or packed or (data.dtype == np.uint8 and bits == 8):
        zeros = _zeros(around, node, 3, bits, scales.shape)
        codes = codes - np.repeat(zeros, block, axis).take(range(codes.shape[axis]), axis)
    parts = CodeParts(around, node)
    table = _blocked(parts, codes, scales, axis, block)
    parts.layer("Gather", [table, node.input[1]], node.output[0], axis=gathered)
    return parts.nodes


def _blocked(parts: CodeParts, codes: np.ndarray, scales: np.ndarray, axis: int, block: int) -> str:
    """The values of codes - zero points: codes with a scale for each block, or real where zero points are."""
    if codes.dtype.kind == "f":
        spread = np.repeat(scales, block, axis).take(range(codes.shape[axis]), axis)
        return parts.constant(codes * spread)
    names = parts.constant(codes, _DIFFERENCE), parts.constant(scales)
    return parts.real(*names, axis=axis, block_size=block)


def _zeros(
    around: Surroundings, node: onnx.NodeProto, index: int, bits: int, shape: tuple[int, ...]
) -> np.ndarray:
    """The zero point of each block: the middle of the codes, packed as they are, or real numbers."""
    if not given(node, index):
        return np.full(shape, 2 ** (bits - 1), _DIFFERENCE)
    zeros = _constant(around, node, index)
    if zeros.dtype.kind == "f":
        return zeros.reshape(shape).astype(np.float32)
    if zeros.dtype == np.uint8 and bits < 8:
        if zeros.size != np.prod(shape):
            zeros = _unpacked(zeros.reshape(*shape[:-1], -1), bits)[..., : shape[-1]]
        zeros = zeros & np.array(
            2**bits - 1, zeros.dtype
        )  # a byte of a single one may hold anything above it
    return zeros.reshape(shape).astype(_DIFFERENCE)


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Codes in bytes [..., n], the first in the lowest bits: int16 [..., 8 n / bits]; bits divide 8."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed.astype(np.uint8)[..., None] >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], -1).astype(_DIFFERENCE)


def _constant(around: Surroundings, node: onnx.NodeProto, index: int) -> np.ndarray:
    array = around.constant(node.input[index])
    if array is None:
        raise UnsupportedError(f"node {node.name!r} ({node.op_type}): {node.input[index]!r} is no constant")
    return array
