"""How the two warpgroups of the wgmma kernel that multiply keep out of each other's way.

Named barriers 1 and 2 belong to the first and the second warpgroup: it waits there, and the other arrives.
Sharing a tile they need none. In turn, one multiplies while the other finishes its tile. Apart, the second
begins in the middle of the first one's first tile and stays half a tile behind, so that one multiplies while
the other adds promoted sums or finishes its tile.
"""

# TVMScript is parsed and never run as Python: conditions of the device can't be joined by `and`.
# ruff: noqa: SIM102

from __future__ import annotations

from tvm.script import tirx as T

from .inline import inline

_BOTH = 256  # threads of the two warpgroups


@inline
def skip_turn(t, now):
    """Past the stages that hold the other warpgroup's tile."""
    if t.tile.sharing == "in_turn":
        now.phase = now.phase ^ ((now.stage + t.steps) // t.stages % 2)
        now.stage = (now.stage + t.steps) % t.stages


@inline
def begin(t, now, group):
    """Before the first tile: `now` is the state of the ring."""
    if t.tile.sharing == "in_turn":
        if group == 1:
            skip_turn(t, now)
            T.ptx.bar.arrive(T.uint32(1), T.uint32(_BOTH))
    if t.tile.sharing == "apart":
        if group == 1:
            T.ptx.bar.sync(T.uint32(1), T.uint32(_BOTH))


@inline
def wait_for_turn(t, group):
    """Before each tile, also one that does not exist."""
    if t.tile.sharing == "in_turn":
        T.ptx.bar.sync(T.Cast("uint32", group + 1), T.uint32(_BOTH))


@inline
def finish_turn(t, group):
    """Once the last product of a tile has been issued."""
    if t.tile.sharing == "in_turn":
        T.ptx.bar.arrive(T.Cast("uint32", 2 - group), T.uint32(_BOTH))


@inline
def let_second_begin(t, turn, step, group):
    """In the middle of the first tile of the first warpgroup."""
    if t.tile.sharing == "apart":
        if turn == 0 and step == t.steps // 2 and group == 0:
            T.ptx.bar.arrive(T.uint32(1), T.uint32(_BOTH))


@inline
def end(t, group):
    """After the last tile: take the last arrival, which nobody waits for."""
    if t.tile.sharing == "in_turn":
        if group == 0:
            T.ptx.bar.sync(T.uint32(1), T.uint32(_BOTH))
