"""What a fuzzer's case is: inputs that follow from a seed, a run of hwptq on them, what it left behind."""

from __future__ import annotations

import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hwptq.cli import main as command_line

#: Runs hwptq; raises SystemExit or an exception as the command or the Python interface does.
Run = Callable[[], object]

ROOT = Path(__file__).parents[2]
#: Exit codes that a command may end with whatever it is given: 1 is a fault of hwptq, 6 one of a kernel.
ALLOWED = (0, 2, 3, 4, 5)
#: Words of libraries and of Python that no user should see.
_FOREIGN = ("Traceback", ".cc:", "object at 0x", "please report it", "segfault")


@dataclass(frozen=True)
class Outcome:
    """What a run left behind; `left` are files that nothing should have left."""

    code: int
    stdout: str
    stderr: str
    left: tuple[str, ...] = ()


class Kind(ABC):
    """One kind of inputs. A class below it in `fuzz_kinds` is found by being defined."""

    name: ClassVar[str]
    most_lines: ClassVar[int] = 1  # of an error

    @abstractmethod
    def prepare(self, chance: random.Random, folder: Path) -> Run:
        """Write the inputs into the empty `folder`, and say what to run on them; outputs go to folder/out."""

    def judge(self, outcome: Outcome) -> str:
        """What is wrong with an outcome, "" for nothing."""
        lines = outcome.stderr.splitlines()
        if outcome.code not in ALLOWED:
            return f"exit code {outcome.code}: {outcome.stderr[-300:]}"
        if found := [word for word in _FOREIGN if word in outcome.stdout + outcome.stderr]:
            return f"says {found[0]!r}: {outcome.stderr[-300:]}"
        if outcome.code and not (1 <= len(lines) <= self.most_lines and self.is_error(lines)):
            return f"{len(lines)} lines for exit code {outcome.code}: {outcome.stderr[-300:]!r}"
        if not outcome.code and lines:
            return f"exit code 0, and says {outcome.stderr[-300:]!r}"
        return f"leaves {', '.join(outcome.left)}" if outcome.left else ""

    def is_error(self, lines: Sequence[str]) -> bool:
        """Whether the lines are an error that says something."""
        return lines[0].startswith("hwptq: ") and len(lines[0]) > len("hwptq: ")


def command(*arguments: object) -> Run:
    """The command line, in this process."""

    def run() -> None:
        sys.argv = ["hwptq", *map(str, arguments)]
        command_line.main()

    return run


def compile_command(model: Path, data: Path, folder: Path, *options: object, whole: bool = True) -> Run:
    """hwptq compile into folder/out; not `whole`: only as far as the choice of dtypes."""
    arguments = [model, "--target", "x86-64-avx2", "--calibration-data", data, "--output", folder / "out"]
    ends = [] if whole else ["--dry-run"]
    return command("compile", *arguments, "--recipe", "fast", "--samples", 3, "--quiet", *ends, *options)


def kinds() -> dict[str, Kind]:
    """All kinds, by name."""
    import fuzz_kinds

    fuzz_kinds.load()
    return {kind.name: kind() for kind in _below(Kind)}


def _below(base: type[Kind]) -> list[type[Kind]]:
    found = [k for sub in base.__subclasses__() for k in (sub, *_below(sub))]
    return [k for k in found if "name" in vars(k)]
