"""What a program that reads prompts is asked for in a stream: a step, a prompt, or what its caches hold."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

import numpy as np

from hwptq.backends.program import Program, Tensor

#: In a stream of samples: give the bytes of the caches, one array uint8.
CACHES: Mapping[str, np.ndarray] = MappingProxyType({})


class Request(IntEnum):
    """The kind of a sample; its value is the byte that stands before it in a program's input."""

    STEP = 0
    PROMPT = 1
    CACHES = 2


def request_of(program: Program, sample: Mapping[str, np.ndarray]) -> Request:
    """A sample that says how many of its tokens are meant is a prompt, an empty one asks for the caches."""
    if program.prompt is None:
        return Request.STEP
    count = program.prompt.inputs[program.prompt.count].name
    return Request.PROMPT if count in sample else Request.STEP if sample else Request.CACHES


def inputs_of(program: Program, request: Request) -> tuple[Tensor, ...]:
    """The inputs of a sample of that kind."""
    if request is Request.PROMPT and program.prompt:
        return program.prompt.inputs
    return program.inputs if request is Request.STEP else ()


def outputs_of(program: Program, request: Request) -> tuple[Tensor, ...]:
    """What it gives."""
    if request is Request.CACHES and program.state:
        return (Tensor("caches", (program.state.nbytes,), "uint8"),)
    return program.outputs
