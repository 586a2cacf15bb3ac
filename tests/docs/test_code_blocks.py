"""Every block of sh and Python in README.md, CONTRIBUTING.md and docs/ runs, or says why it can't.

They run one after the other in a folder with the files of the demo. A block that stands on several pages with
the same text runs once. Commands of hwptq run in this process: loading TVM anew for each would take longer.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_blocks import PAGES, ROOT, Block, blocks

from hwptq.cli import main as cli

DIGITS = ROOT / "examples" / "digits"
FILES = {"digits.onnx": "model.onnx"} | {
    name: name for name in ("calibration.npz", "evaluation.npz", "preprocess.toml")
}
#: Pages whose Python has a test of its own, because it needs a module or data of one's own.
ELSEWHERE = {
    "docs/api.md": "tests/test_api_page.py",
    "docs/embedding.md": "tests/passes/test_embedding_page.py",
}
#: Pages in the order in which they share a folder; out/model is compiled by the first of them.
RUN = [page for page in PAGES if any(b.language in ("sh", "python") for b in blocks(page))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(text: str) -> list[str]:
    """The commands of a block, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def is_benchmark(block: Block) -> bool:
    """Whether it repeats measurements, which need models that aren't shipped."""
    return all(command.startswith("python benchmarks/") for command in commands(block.text))


class Sandbox:
    """A folder with the demo, in which blocks run."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch, self._done = folder, monkeypatch, set[str]()
        for source, name in FILES.items():
            (folder / name).write_bytes((DIGITS / source).read_bytes())
        (folder / "scripts").symlink_to(ROOT / "scripts")

    def run(self, block: Block) -> None:
        if block.text in self._done:
            return
        self._done.add(block.text)
        if block.file:
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, f"{block.page.name}:{block.line}", "exec"), {"__name__": "block"})
        elif block.language == "sh":
            for command in commands(block.text):
                self._command(command)

    def _command(self, command: str) -> None:
        words = shlex.split(command, comments=True)
        if words[0] == "hwptq":
            self._monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as caught:
                cli.main()
            assert not caught.value.code, command
            return
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_the_blocks_run(
    runnable: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable("x86-64-avx2")
    runnable("arm-cortex-m4")
    monkeypatch.chdir(tmp_path)
    sandbox = Sandbox(tmp_path, monkeypatch)
    first = ROOT / "docs" / "first-model.md"
    for page in [first, *(p for p in RUN if p != first)]:
        for block in blocks(page):
            tested = block.language == "python" and name_of(page) in ELSEWHERE
            if block.not_run is None and not tested and not is_benchmark(block):
                sandbox.run(block)


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_what_is_not_run_has_a_reason(page: Path) -> None:
    for block in blocks(page):
        assert block.not_run is None or len(block.not_run) > 8, f"{name_of(page)}:{block.line}"
        if block.language == "sh" and is_benchmark(block):
            for script in re.findall(r"benchmarks/\w+\.py", block.text):
                assert (ROOT / script).is_file(), f"{name_of(page)}:{block.line}: {script}"
    assert name_of(page) not in ELSEWHERE or (ROOT / ELSEWHERE[name_of(page)]).is_file()


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_blocks_say_their_language(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(list(blocks(page))), "a fence that is not closed, or is indented"
