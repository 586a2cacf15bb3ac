"""Run a check in a child process, because LLVM ends the process on code that it can't generate."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from math import ceil
from typing import Any

TIMEOUT = 20.0  # seconds of the processor
_BUSY = 6  # times as long by the clock, where others use the processor too


class Crash(Exception):
    """The child died or did not come to an end."""


def can_isolate() -> bool:
    """Whether this system can fork."""
    return hasattr(os, "fork")


def isolated(work: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """What `work()` returns (JSON), from a silent child process; Crash where there is no result.

    timeout: seconds of the processor that it may take, a few times as many by the clock.

    A fork, not a new interpreter: TVM takes seconds to import, the fork milliseconds.
    """
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside idle threads
        child = os.fork()
    if child == 0:
        _child(work, send, timeout)
    os.close(send)
    try:
        answer = _receive(receive, time.monotonic() + _BUSY * timeout)
    finally:
        os.close(receive)
        os.kill(child, signal.SIGKILL)  # not yet waited for, so the id is still its own
        os.waitpid(child, 0)
    try:
        return json.loads(answer)
    except ValueError as error:
        raise Crash("no result") from error


def _child(work: Callable[[], Any], send: int, timeout: float) -> None:
    import resource  # where there is fork, there is this

    try:
        faulthandler.disable()  # a crash here is an answer, not news
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (ceil(timeout),) * 2)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        answer = json.dumps(work()).encode()
        while answer:
            answer = answer[os.write(send, answer) :]
    finally:
        os._exit(0)


def _receive(descriptor: int, deadline: float) -> bytes:
    """All that comes until the child closes its end, or until the deadline."""
    parts = []
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([descriptor], [], [], left)
        part = os.read(descriptor, 65536) if ready else b""
        if not part:
            break
        parts.append(part)
    return b"".join(parts)
