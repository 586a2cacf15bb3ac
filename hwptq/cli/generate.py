"""hwptq generate: text from a compiled language model."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .place import On
from .progress_display import TerminalProgress
from .talk import Talk

if TYPE_CHECKING:
    from hwptq.text import Tokenizer


def generate_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="output folder of hwptq compile")],
    tokenizer: Annotated[
        Path, typer.Option(metavar="FILE.json", help="tokenizer.json of the tokenizers library")
    ],
    prompt: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="what the text begins with (--prompt of hwptq compile is a number of tokens)"
        ),
    ],
    talk: Talk,
    tokens: Annotated[int, typer.Option(metavar="N", help="the most tokens to make", min=1)] = 64,
    temperature: Annotated[float, typer.Option(help="0 = always the likeliest token", min=0)] = 0.0,
    top: Annotated[int, typer.Option(metavar="K", help="choose among the K likeliest; 0 = all", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="of the random choice")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TOKEN", help="end behind it, such as '</s>'; may be repeated")
    ] = None,
    on: On = None,
    trust_descriptor: Annotated[bool, typer.Option(help="run it by whatever its metadata say")] = False,
) -> None:
    """Go on with TEXT by the code in OUT, the graph of one decoding step with caches; tokens a second."""
    context.obj.begin(None, talk.verbose)
    with TerminalProgress(talk.quiet) as progress, progress.loading():
        from hwptq.artifact import load
        from hwptq.generation import Generation, Sampling
        from hwptq.text import open_tokenizer
    words = open_tokenizer(tokenizer)
    model = load(folder, on, trust_descriptor)
    with closing(model):
        ends = frozenset(words.token(name) for name in stop or [])
        made = Generation(model, words.encode(prompt), tokens, Sampling(temperature, top, seed), ends)
        found = _shown(made.tokens(), words, prompt) if talk.shows else list(made.tokens())
    rate = made.steps / made.seconds if made.seconds else None
    read = len(made.prompt) / made.prompt_seconds if made.prompt_seconds else None
    executor = model.running.description
    talk.tell({
        "executor": executor, "prompt": prompt, "text": words.decode(found), "tokens": found,
        "tokens_a_second": rate, "prompt_tokens": len(made.prompt), "prompt_tokens_a_second": read,
    })  # fmt: skip
    if talk.shows:
        speed = f", {rate:.1f} tokens a second" if rate is not None else ""
        before = f"; {len(made.prompt)} of the prompt" + (f", {read:.1f} a second" if read else "")
        print(f"\n{len(found)} tokens{speed}{before}; {executor}")


def _shown(tokens: Iterable[int], words: Tokenizer, prompt: str) -> list[int]:
    """All tokens; their text is printed as they come, behind the prompt, a letter once all of its bytes are
    there."""
    print(prompt, end="", flush=True)
    text, found = "", list[int]()
    for token in tokens:
        found.append(token)
        whole = words.decode(found)
        if not whole.endswith("\N{REPLACEMENT CHARACTER}"):
            print(whole[len(text) :], end="", flush=True)
            text = whole
    return found
