"""hwptq generate: text by emitted code, and what is said where there can be none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import TARGET, Command
from step_models import WORDS, step_model

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A tokenizer of the words w0 … w10."""
    file = tmp_path / "tokenizer.json"
    level = tokenizers.models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0")
    library = tokenizers.Tokenizer(level)
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.save(str(file))
    return file


@pytest.fixture
def out(hwptq: Command, tmp_path: Path) -> Path:
    step_model(tmp_path / "step.onnx")
    model, folder = tmp_path / "step.onnx", tmp_path / "text"
    done = hwptq("compile", model, "--target", TARGET, "--activations", "dynamic", "--output", folder)
    assert done.code == 0
    return folder


def test_generate(hwptq: Command, out: Path, words: Path) -> None:
    asked = ("generate", out, "--tokenizer", words, "--prompt", "w3 w1")
    shown = hwptq(*asked, "--tokens", "3")
    assert shown.code == 0
    assert shown.stdout.startswith("w3 w1")
    assert "3 tokens, " in shown.stdout

    found = json.loads(hwptq(*asked, "--tokens", "3", "--json").stdout)
    assert len(found["tokens"]) == 3
    assert found["text"].split() == [f"w{token}" for token in found["tokens"]]
    assert found["tokens_a_second"] > 0

    page = Path(__file__).parents[2].joinpath("docs/language-model.md").read_text("utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.M)
    assert sorted(found) == sorted(name.strip("`") for row in rows for name in row.split(", "))

    last = f"w{found['tokens'][0]}"
    ended = json.loads(hwptq(*asked, "--stop", last, "--json").stdout)
    assert ended["tokens"] == found["tokens"][:1]

    assert "no token 'nothing'" in hwptq(*asked, "--stop", "nothing").stderr
    broken = words.with_name("broken.json")
    broken.write_text("{}")
    failed = hwptq("generate", out, "--tokenizer", broken, "--prompt", "w3")
    assert failed.code == 2
    assert "no tokenizer.json" in failed.stderr


def test_other_models_make_no_text(hwptq: Command, words: Path) -> None:
    assert hwptq.compile("--recipe", "fast").code == 0
    failed = hwptq("generate", hwptq.folder / "out", "--tokenizer", words, "--prompt", "w3")
    assert failed.code == 2
    assert "has no caches" in failed.stderr
