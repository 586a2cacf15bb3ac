"""The man pages say what the help says, and completion knows the options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from doc_blocks import ROOT

from hwptq.cli import main as cli

sys.path.insert(0, str(ROOT / "scripts"))
import make_man_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("man")
    make_man_page.main(str(place))
    return place


def test_a_page_for_each_command(folder: Path) -> None:
    names = {path.stem for path in folder.iterdir()}
    assert {"hwptq", "hwptq-compile", "hwptq-diagnose", "hwptq-targets", "hwptq-targets-check"} <= names


def test_every_option_is_on_its_page(folder: Path) -> None:
    command = typer.main.get_command(cli.app).commands["compile"]  # type: ignore[attr-defined]
    text = (folder / "hwptq-compile.1").read_text(encoding="utf-8")
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    assert len(options) > 20
    assert [o for o in options if make_man_page.roff(o) not in text] == []


@pytest.mark.parametrize(
    ("text", "shown"), [("--a", r"\-\-a"), (".x", r"\&.x"), ("'x", r"\&'x"), ("a\\b", r"a\eb")]
)
def test_what_roff_would_read_is_escaped(text: str, shown: str) -> None:
    assert make_man_page.roff(text) == shown


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("compile --tu", ["--tune", "--tune-cache"]),
        ("compile --target arm-cortex-m", ["arm-cortex-m4", "arm-cortex-m55"]),
        ("targets show riscv", ["riscv32-imc", "riscv64-rvv"]),
        ("compile --target ./chip", []),  # the shell offers files
    ],
)
def test_completion(
    typed: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_HWPTQ_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"hwptq {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    monkeypatch.setattr(sys, "argv", ["hwptq"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out.split() == offered


def test_groff_reads_the_pages(folder: Path) -> None:
    try:
        for page in folder.iterdir():
            done = subprocess.run(
                ["groff", "-man", "-ww", "-Kutf8", "-Tutf8", str(page)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, ""), page.name
    except FileNotFoundError:
        pytest.skip("no groff here")
