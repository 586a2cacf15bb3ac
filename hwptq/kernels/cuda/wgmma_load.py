"""The thread of the wgmma kernel that loads tiles of both operands by TMA into a ring of stages."""

# TVMScript is parsed and never run as Python.

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from tvm.backend.cuda.lang import PipelineState
from tvm.script import tirx as T

from .inline import inline
from .tiling import Tiling
from .wgmma_places import Places

_COPY = "cp.async.bulk.tensor.{}d.shared::cluster.global.mbarrier::complete_tx::bytes"


def map_arguments(t: Tiling) -> tuple[list[Any], list[Any]]:
    """What cuTensorMapEncodeTiled takes behind the pointers to x and to the weights.

    x is a 4-D tensor: the zero fill beyond it is the padding, and the element strides are those of the
    convolution.
    """
    p, size = t.problem, t.problem.operand.bytes
    n, h, w, c = p.images
    box_n, box_h, box_w = t.box
    sh, sw = p.strides
    layout = [0, t.swizzle, 2, 0]
    pixels = [c * size, w * c * size, h * w * c * size]
    x = [c, w, h, n, *pixels, t.chunk, box_w * sw, box_h * sh, box_n, 1, sw, sh, 1, *layout]
    rows = p.groups_of_weights * t.weight_rows
    weights = [t.weight_depth, rows, t.weight_depth * size, t.chunk, t.columns, 1, 1, *layout]
    return x, weights


def loader(t: Tiling) -> Callable[..., Any]:
    """(ring, stages of x and of w, their tensor maps, block, which ring): load its tiles step by step."""
    at_tile = Places(t)
    tiles, rounds = at_tile.tiles, -(-at_tile.rounds // t.rings)
    loaded = (prod(t.box) + t.columns) * t.chunk * t.problem.operand.bytes
    copy_x, copy_w = _COPY.format(4), _COPY.format(2)

    @inline
    def load(ring, xs, ws, x_map, w_map, block, own):
        at = T.meta_var(PipelineState(t.stages, 1))
        for i in T.serial(rounds):
            index = T.meta_var(block + (i * t.rings + own) * t.blocks)
            if index < tiles:
                tile = T.meta_var(at_tile.tile(index))
                for k in T.serial(t.steps):
                    stage = T.meta_var(own * t.stages + at.stage)
                    ring.empty.wait(stage, at.phase)
                    ring.full.arrive(stage, loaded)
                    T.ptx[copy_x](
                        xs.ptr_to([stage, 0, 0]), T.address_of(x_map), *at_tile.x(tile[0], k),
                        ring.full.ptr_to([stage]),
                    )  # fmt: skip
                    T.ptx[copy_w](
                        ws.ptr_to([stage, 0, 0]), T.address_of(w_map), k * t.chunk,
                        at_tile.w(tile[0], tile[1]), ring.full.ptr_to([stage]),
                    )  # fmt: skip
                    at.advance()

    return load
