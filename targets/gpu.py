"""The [gpu] of a descriptor: what kernels in CUDA C++ ask of a chip, beside the tables of their templates."""

from __future__ import annotations

from dataclasses import dataclass, field

from .fields.about import about


@dataclass(frozen=True)
class Gpu:
    """How many threads a GPU wants, and what room a block of them has."""

    busy_threads: int = field(
        default=2**16,
        metadata=about(
            "threads of the whole chip with which loads and divisions are hidden: kernels of rows give a row "
            "fewer lanes where more would run, tables take as many blocks as make two of each",
            low=32,
            high=2**24,
        ),
    )
    shared_memory: int = field(
        default=48 * 1024,
        metadata=about(
            "bytes of shared memory that a block gets without asking for more", low=2**10, high=2**20
        ),
    )
