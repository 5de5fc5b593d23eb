"""Texts for a character model: folk tunes in ABC notation, or a file of the user's."""

import functools
import importlib.util
import random
import re
import warnings
from pathlib import Path

import lstm_jax as lj
from experiments.common import own_data
from lstm_jax.data import Text

COLLECTION = "oneills1850"  # of music21
LEFT_OUT = ("B:", "N:", "Z:")  # lines on book, notes and transcriber, alike in all tunes
SHARE = 0.05  # of the tunes, or of a text, that validates, and that tests
SEED = 0  # of the order of the tunes


@functools.cache
def text_of(path: str) -> tuple[str, Text]:
    """Returns a text and its division; "" is the folk tunes, in a random order."""
    if path:
        with own_data.blaming("text_file", path):
            text = lj.data.read_text(path)
            return text, Text(text, validation=SHARE, test=SHARE)
    tunes = collection()
    random.Random(SEED).shuffle(tunes)
    held = round(SHARE * len(tunes))
    parts = ["".join(tunes[start:stop]) for start, stop in ((-2 * held, -held), (-held, None))]
    text = "".join(tunes)
    validation, test = (len(part) / len(text) for part in parts)
    return text, Text(text, validation=validation, test=test)


def collection() -> list[str]:
    """Returns the tunes of O'Neill's collection of 1850 in ABC notation."""
    if importlib.util.find_spec("music21") is None:
        raise ValueError("the tunes need music21: pip install music21, or give --text_file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from music21 import corpus  # an extra, and slow to import

    paths = [path for path in corpus.getComposer(COLLECTION) if str(path).endswith(".abc")]
    text = "\n".join(Path(path).read_text(encoding="latin1") for path in sorted(paths))
    tunes = (f"X:{tune}" for tune in re.split(r"(?m)^X:", text)[1:])
    return ["\n".join(_kept(tune)) + "\n\n" for tune in tunes]


def _kept(tune: str) -> list[str]:
    return [line for line in tune.strip().splitlines() if line[:2] not in LEFT_OUT]


def parses(tune: str) -> bool:
    """Returns whether music21 reads notes from a tune in ABC notation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from music21 import converter

        try:
            score = converter.parse(tune, format="abc")
        except Exception:  # it raises whatever its parser meets
            return False
        return len(list(score.recurse().notes)) > 0  # pyright: ignore
