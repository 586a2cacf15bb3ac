"""The [memory] of a descriptor: what a device's memory asks of the code, and where programs lie in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .fields.about import about


@dataclass(frozen=True)
class Region:
    """A stretch of addresses of a device without an operating system."""

    name: str = field(
        metadata=about("such as flash or sram", pattern=r"[a-z][a-z0-9_]*", like="a name in lower case")
    )
    origin: int = field(metadata=about("its first address", low=0, high=2**40))
    bytes: int = field(metadata=about("its size", low=1, high=2**40))
    holds: tuple[str, ...] = field(
        metadata=about(
            "what lies there: code, constants (weights), data (variables, input, output and stack), arena "
            "(activations; with data if not said)",
            choices=("code", "constants", "data", "arena"),
            not_empty=True,
        )
    )


@dataclass(frozen=True)
class Memory:
    """What the device's memory asks of the code."""

    alignment: int = field(
        default=64, metadata=about("alignment of tensors in bytes", low=1, high=4096, power_of_two=True)
    )
    readable_behind: int = field(
        default=0,
        metadata=about("bytes behind every tensor that kernels may read, never write", low=0, high=4096),
    )
    first_cache: int = field(
        default=2**15,
        metadata=about(
            "bytes of the first cache of data: where weights of a depthwise layer by dot products take more "
            "than half of it, vectors share them",
            low=0,
            high=2**30,
        ),
    )
    scratchpad: int = field(
        default=0,
        metadata=about("bytes of workspace a kernel may use; 0 = no limit", low=0, high=2**40),
    )
    stack: int = field(
        default=8192, metadata=about('bytes of the stack of runtime "bare"', low=256, high=2**30)
    )
    regions: tuple[Region, ...] = field(
        default=(), metadata=about('what a program of runtime "bare" is laid out in, and has to fit')
    )
