"""Texts that a model writes: only by models that predict next tokens, and with their likelihoods."""

from __future__ import annotations

import numpy as np
from tvm import relax

from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.own_texts import own_texts, predicts_next

op = relax.op
WORDS, LENGTH = 7, 12


def likely(strength: float) -> np.ndarray:
    """[V, V]: behind word w the word w + 1 is the likeliest."""
    return np.float32(strength) * np.roll(np.eye(WORDS, dtype=np.float32), 1, axis=1)


def counting(strength: float = 6.0, looks_ahead: bool = False) -> Interpreter:
    ids = relax.Var("ids", relax.TensorType((1, LENGTH), "int64"))
    builder = relax.BlockBuilder()
    with builder.function("main", [ids]):
        with builder.dataflow():
            x = builder.emit(op.take(relax.const(likely(strength)), ids, axis=0))
            if looks_ahead:
                x = builder.emit(op.add(x, builder.emit(op.mean(x, axis=1, keepdims=True))))
            out = builder.emit_output(op.multiply(x, relax.const(np.float32(1))))
        builder.emit_func_output(out)
    return Interpreter(builder.get())


def text(seed: int = 0) -> dict[str, np.ndarray]:
    return {"ids": (np.arange(LENGTH)[None] + seed) % WORDS}


def test_a_model_of_next_tokens_is_known_by_what_it_does() -> None:
    assert predicts_next(counting(), text(), "ids")
    assert not predicts_next(counting(looks_ahead=True), text(), "ids")
    assert not predicts_next(counting(strength=0.1), text(), "ids")  # no better than chance
    backwards = {"ids": text()["ids"][:, ::-1].copy()}
    assert not predicts_next(counting(), backwards, "ids")


def test_a_sure_model_writes_what_it_is_sure_of() -> None:
    for found in own_texts(counting(strength=60.0), [text(s) for s in range(4)], "ids", rounds=LENGTH):
        steps = np.diff(found["ids"][0]) % WORDS
        np.testing.assert_array_equal(steps, 1)


def test_words_come_as_often_as_they_are_likely() -> None:
    found = own_texts(counting(strength=2.0), [text(s % WORDS) for s in range(200)], "ids", rounds=LENGTH)
    steps = np.concatenate([np.diff(f["ids"][0]) for f in found]) % WORDS
    share = np.exp(2.0) / (np.exp(2.0) + WORDS - 1)
    assert abs(np.mean(steps == 1) - share) < 0.04  # three deviations of 2,200 steps


def test_the_same_seed_writes_the_same_texts() -> None:
    a, b = (own_texts(counting(), [text()], "ids", seed=s) for s in (3, 3))
    np.testing.assert_array_equal(a[0]["ids"], b[0]["ids"])
