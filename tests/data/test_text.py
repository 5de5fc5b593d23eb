"""Texts: any Unicode, a vocabulary of the training part alone, refusals by name."""

import re
from typing import Any, cast

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from lstm_jax.data.text import UNSEEN, Text, Vocabulary
from lstm_jax.tasks import LanguageModel

UNICODE = "Grüße, 世界! 👋🏽 naïve\x00\n" * 4


@hypothesis.given(st.text(min_size=60), st.text())
def test_numbers_are_the_text_and_unseen_symbols_are_marked(known: str, other: str) -> None:
    hypothesis.assume(len(set(known)) > 1)
    symbols = "".join(sorted(set(known)))
    vocabulary = Vocabulary("char", symbols)
    assert vocabulary.decode(vocabulary.encode(known)) == known
    wanted = "".join(c if c in known else UNSEEN for c in other)
    assert vocabulary.decode(vocabulary.encode(other)) == wanted


def test_bytes_are_those_of_utf_8() -> None:
    text = Text(UNICODE, "byte")
    assert bytes(text.numbers) == UNICODE.encode()
    assert len(text.vocabulary) == 256
    assert text.vocabulary.decode(text.numbers) == UNICODE
    assert Text(UNICODE.encode(), "byte").digest == text.digest != Text(UNICODE).digest


@hypothesis.given(st.text(min_size=10, max_size=10))
def test_the_vocabulary_does_not_depend_on_what_validates_and_tests(end: str) -> None:
    train = "abc" * 30
    text = Text(train + end)
    assert text.vocabulary == Text(train + "a" * 10).vocabulary
    assert text.bounds == {"train": (0, 90), "validation": (90, 95), "test": (95, 100)}
    known = [c in "abc" for c in end]
    assert (text.numbers[90:] < 3).tolist() == known


@pytest.mark.parametrize("level", ["char", "byte"])
def test_another_text_tests_in_the_vocabulary_of_the_first(level: Any) -> None:
    text = Text("abc" * 30, level, validation=0.1, test="cab x")
    alone = Text("abc" * 30, level, validation=0.1, test=0)
    assert text.vocabulary == alone.vocabulary
    assert text.bounds == alone.bounds | {"test": (90, 95)}
    end = text.vocabulary.encode("cab x")
    np.testing.assert_array_equal(text.numbers, np.concatenate([alone.numbers, end]))


def test_numbers_take_no_more_bytes_than_they_need() -> None:
    assert Text(UNICODE).numbers.dtype == np.uint8
    assert Text("".join(map(chr, range(5000)))).numbers.dtype == np.uint16


BYTES: Any = b"abc" * 30
LEVEL: Any = "word"
FILE = __file__


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Text("short"), "text must be long enough for two symbols of validation, got 5"),
        (lambda: Text("a" * 90 + "b" * 10), "text must have two different symbols to train"),
        (lambda: Text(BYTES), "text must be a string for level='char', got bytes"),
        (lambda: Text(UNICODE, LEVEL), "level must be one of char, byte, got 'word'"),
        (lambda: Text(UNICODE, test=BYTES), "test must be a string for level='char', got bytes"),
        (
            lambda: Text(__file__),
            f"text must be a text, got the path of a file: read_text({FILE!r})",
        ),
        (lambda: Text(UNICODE, test=__file__), "test must be a text, got the path of a file"),
        (lambda: LanguageModel(UNICODE).encode(__file__), "text must be a text, got the path of"),
        (lambda: Text(UNICODE, test="a"), "test must have two symbols or more, got 'a'"),
        (lambda: Text(UNICODE).vocabulary.encode(cast(Any, 3)), "text must be a string for level"),
        (lambda: Text(UNICODE, validation=1.0), "validation must be a share"),
        (lambda: Text(UNICODE, validation=0.6, test=0.4), "validation and test must leave rows"),
    ],
)
def test_bad_texts_are_refused_in_one_sentence(make: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_a_text_in_pieces_is_the_text_at_once(monkeypatch):
    words = "the cat sat on the mat 世界 " * 5
    whole = Text(words)
    monkeypatch.setattr("lstm_jax.data.text.PIECE", 7)
    parts = Text(words)
    np.testing.assert_array_equal(parts.numbers, whole.numbers)
    np.testing.assert_array_equal(parts.counts(), whole.counts())
    start, stop = whole.bounds["train"]
    symbols = whole.vocabulary.symbols
    assert whole.counts().tolist() == [words[start:stop].count(symbol) for symbol in symbols]
    assert whole.numbers.dtype == np.uint8
