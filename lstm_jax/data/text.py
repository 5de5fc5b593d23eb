"""Text as numbers: characters of its training part, or bytes."""

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from lstm_jax.checks import check_is
from lstm_jax.data.digest import digest
from lstm_jax.data.splits import SPLITS, check_shares

UNSEEN = "\N{REPLACEMENT CHARACTER}"
LONGEST_PATH = 1 << 15  # characters; no system has longer ones
PIECE = 1 << 20  # symbols at a time: code points take four bytes each, numbers of most texts one


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The symbols of texts and their numbers; equal by value.

    Attributes:
      level: "char" for characters, "byte" for the bytes of UTF-8.
      symbols: the characters in the order of their numbers; "" for bytes.
    """

    level: Literal["char", "byte"]
    symbols: str = ""

    def __len__(self) -> int:
        return 256 if self.level == "byte" else len(self.symbols)

    def encode(self, text: str | bytes) -> np.ndarray:
        """Returns the numbers of a text's symbols, `len(self)` for one that is not among them.

        Raises:
          TypeError: the text is no string; bytes are for level="byte".
        """
        _check("text", text, self.level)
        if self.level == "byte":
            return _points(text, "byte")
        number = np.full(sys.maxunicode + 1, len(self), np.min_scalar_type(len(self)))
        number[_points(self.symbols, "char")] = np.arange(len(self))
        found = np.empty(len(text), number.dtype)
        for place in _pieces(len(text)):
            found[place] = number[_points(text[place], "char")]
        return found

    def decode(self, numbers: Sequence[int] | np.ndarray) -> str:
        """Returns the text of numbers, with `UNSEEN` for what is not a symbol."""
        if self.level == "byte":
            return bytes(np.asarray(numbers, np.uint8)).decode("utf-8", "replace")
        symbols = self.symbols + UNSEEN
        return "".join(symbols[min(int(n), len(self))] for n in numbers)


class Text:
    """A text whose first part trains, and whose last parts validate and test.

    Attributes:
      vocabulary: the symbols of the training part.
      numbers: [N], the number of each symbol of the text, unsigned.
      bounds: {"train": (start, stop), ...} of each part.
    """

    vocabulary: Vocabulary
    numbers: np.ndarray
    bounds: dict[str, tuple[int, int]]

    def __init__(
        self,
        text: str | bytes,
        level: Literal["char", "byte"] = "char",
        *,
        validation: float = 0.05,
        test: float | str | bytes = 0.05,
    ):
        """Numbers the symbols of a text.

        Args:
          text: any Unicode string; bytes, too, for level="byte".
          level: "char", or "byte" for the 256 bytes of UTF-8.
          validation: the share of the text that validates, 0 for none.
          test: the share that tests, 0 for none; or another text that tests.

        Raises:
          ValueError: a part has fewer than two symbols, the training part has one symbol only, or a
            text is the path of a file.
          TypeError: the text is no string.
        """
        if level not in ("char", "byte"):
            raise ValueError(f"level must be one of char, byte, got {level!r}")
        _check("text", text, level)
        check_no_path("text", text)
        if isinstance(test, str | bytes):
            _check("test", test, level)
            check_no_path("test", test)
            share, other = 0.0, test
        else:
            share, other = test, None
        check_shares(validation, share)
        text = _points(text, level).tobytes() if level == "byte" else text
        self.bounds = _bounds(len(text), validation, share)
        symbols = set(text[slice(*self.bounds["train"])])
        if len(symbols) < 2:
            raise ValueError(f"text must have two different symbols to train, got {text!r:.60}")
        characters = "" if level == "byte" else "".join(sorted(map(str, symbols)))
        self.vocabulary = Vocabulary(level, characters)
        self.numbers = self.vocabulary.encode(text)
        if other is not None:
            added = self.vocabulary.encode(other)
            if len(added) < 2:
                raise ValueError(f"test must have two symbols or more, got {other!r}")
            self.bounds["test"] = (len(self.numbers), len(self.numbers) + len(added))
            self.numbers = np.concatenate([self.numbers, added])

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        kind = "bytes" if self.vocabulary.level == "byte" else "characters"
        return f"Text({len(self)} {kind}, {len(self.vocabulary)} different)"

    def counts(self) -> np.ndarray:
        """Returns how often the training part has each symbol, [V]."""
        train, size = self.numbers[slice(*self.bounds["train"])], len(self.vocabulary)
        return sum(
            (np.bincount(train[place], minlength=size) for place in _pieces(len(train))),
            np.zeros(size, np.int64),
        )

    @property
    def digest(self) -> str:
        """The hash of the text and of its division."""
        symbols = np.array([self.vocabulary.level, self.vocabulary.symbols])
        bounds = np.array(list(self.bounds.values()))
        return digest({"symbols": symbols, "numbers": self.numbers, "bounds": bounds})


def _check(name: str, text: Any, level: str) -> None:
    """Raises TypeError unless a text is a string, or bytes for level="byte"."""
    kind, right = (str | bytes, "a string or bytes") if level == "byte" else (str, "a string")
    check_is(name, text, kind, f"{right} for level={level!r}")


def check_no_path(name: str, text: str | bytes) -> None:
    """Raises ValueError where a text is the path of a file instead of its content."""
    if len(text) <= LONGEST_PATH and os.path.isfile(text):  # which copies the text
        raise ValueError(f"{name} must be a text, got the path of a file: read_text({text!r})")


def _points(text: str | bytes, level: Any) -> np.ndarray:
    """Returns the code point of each character, or the bytes."""
    if level == "byte":
        text = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return np.frombuffer(text, np.uint8)
    assert isinstance(text, str)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _pieces(size: int) -> Iterator[slice]:
    """Yields the places of a long text, a piece at a time."""
    yield from (slice(start, start + PIECE) for start in range(0, size, PIECE))


def _bounds(size: int, validation: float, test: float) -> dict[str, tuple[int, int]]:
    ends = np.cumsum([0, 1 - (validation + test), validation, test])
    places = [round(end * size) for end in ends]
    bounds = {split: (places[n], places[n + 1]) for n, split in enumerate(SPLITS)}
    shares = (1.0, validation, test)
    for (split, (start, stop)), share in zip(bounds.items(), shares, strict=True):
        if share and stop - start < 2:
            raise ValueError(
                f"text must be long enough for two symbols of {split}, got {size} symbols for "
                f"validation={validation} and test={test}"
            )
    return bounds
