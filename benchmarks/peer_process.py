"""A peer that runs in a Python of its own and is asked for its time by a line."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from models import Case

_PEER = Path(__file__).with_name("openvino_peer.py")


class TimedPeer:
    """OpenVINO on a case, in the Python `interpreter`."""

    def __init__(
        self, interpreter: Path, case: Case, precision: str, repeat: int, threads: int, folder: Path
    ):
        samples = folder / f"{case.name}.samples.npz"
        if not samples.exists():
            names = case.samples[0]
            np.savez(samples, **{n: np.stack([s[n] for s in case.samples]) for n in names})
        command = [
            str(interpreter), str(_PEER), str(case.model), str(samples), precision, str(threads), str(repeat),
            *(["--transformer"] if case.transformer else []),
        ]  # fmt: skip
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env={}
        )

    def seconds(self, sample: Mapping[str, np.ndarray]) -> float:
        """Mean time of one inference, on the first sample of the case."""
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return int(process.stdout.readline()) * 1e-9

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
