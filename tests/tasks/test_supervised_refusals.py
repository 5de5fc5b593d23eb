"""Data that no supervised task can learn from are refused in one sentence."""

import re
from typing import Any

import numpy as np
import pytest

from lstm_jax.data import Sequences, Split
from lstm_jax.tasks import Classification, Labelling, Regression, heads
from tests.tasks.supervised_rows import LABELS, NUMBERS, N, T, X

LATE = np.array(["cat"] * 23 + ["cow"])
ONE = np.zeros((N, T, 1), np.float32)
ROWS = {"train": np.arange(20), "validation": np.arange(20, 22), "test": np.arange(22, 24)}
LIGHT = Split.of(Sequences(X, LABELS, weight=[0] * 20 + [1] * 4), ROWS)
UNDIVIDED: Any = Sequences(X, LABELS)
EVEN: Any = "even"
UNNAMED: Any = [1, 2]
BAD = [
    (lambda: Classification(LIGHT), "weight must be above 0 for one training row at least"),
    (
        lambda: Classification(Split(Sequences(X, LABELS, missing="indicator"))).encode(UNDIVIDED),
        "missing must be 'indicator', as for training, got 'mask'",
    ),
    (
        lambda: Classification(Split(Sequences(X, LABELS))).encode(X[0]),
        "x must have the 3 features x0, x1, x2, got 1; one sequence alone is x[None]",
    ),
    (lambda: Classification(UNDIVIDED), "split must be a Split, such as"),
    (
        lambda: Classification(Split(Sequences(X))),
        "y must be given: these Sequences have no targets",
    ),
    (
        lambda: Classification(Split(Sequences(X, ["a"] * N))),
        "y must have at least 2 classes in the training rows, got one, 'a'",
    ),
    (
        lambda: Classification(Split(Sequences(X, LABELS), test=Sequences(X, LATE))),
        "y of row 47 must be a class of the training rows, 'cat', 'dog', 'eel', got 'cow'",
    ),
    (
        lambda: Classification(Split(Sequences(X, ["a", None] * 12))),
        "y must have a target in every row, got none in row 1",
    ),
    (
        lambda: Classification(Split(Sequences(X, np.eye(3)[np.arange(N) % 3]))),
        "one class: use y.argmax(1), got one-hot rows of shape [24, 3]",
    ),
    (
        lambda: Classification(Split(Sequences(X, X[..., 0]))),
        "y must be [N] labels, or [N, K] zeros and ones, got float32 of shape [24, 6]",
    ),
    (
        lambda: Classification(Split(Sequences(X, LABELS)), EVEN),
        "class_weights must be None, 'balanced' or a dictionary from class to weight, got 'even'",
    ),
    (
        lambda: Classification(Split(Sequences(X, LABELS)), UNNAMED),
        "class_weights must be None, 'balanced' or a dictionary from class to weight, got [1, 2]",
    ),
    (
        lambda: Classification(Split(Sequences(X, LABELS)), {"cat": 1}),
        "class_weights must have a number above 0 for class 'dog', got None",
    ),
    (
        lambda: Classification(
            Split(Sequences(X, LABELS)), dict.fromkeys([*"abc", "cat", "dog", "eel"], 1)
        ),
        "class_weights must name classes alone, 'cat', 'dog', 'eel', got 'a'",
    ),
    (
        lambda: Classification(Sequences(X, NUMBERS).split(0.2, 0.2)),
        "; Regression predicts numbers",
    ),
    (
        lambda: Regression(Split(Sequences(X, LABELS))),
        "y must hold numbers, got strings such as 'cat'; Classification names classes",
    ),
    (
        lambda: Regression(Split(Sequences(X, [np.nan, *NUMBERS[1:]]))),
        "y must have a target in every row, got none in row 0",
    ),
    (
        lambda: Regression(Split(Sequences(X, [np.inf, *NUMBERS[1:]]))),
        "y of row 0 must be finite, got inf",
    ),
    (
        lambda: Regression(Split(Sequences(X, [3.0] * N))),
        "target 0 of y must differ between training rows, got 3.0 alone",
    ),
    (
        lambda: Regression(Split(Sequences(X, NUMBERS)), heads.CrossEntropy(3)),
        "head must be one of numbers, such as heads.Huber(), got CrossEntropy",
    ),
    (
        lambda: Regression(Split(Sequences(X, -NUMBERS)), heads.NegativeBinomial()),
        "y must hold counts 0, 1, 2, ... for NegativeBinomial(), got -",
    ),
    (
        lambda: Labelling(Split(Sequences(X, LABELS))),
        "y must be [N, T] = [24, 6] or [N, T, K], one answer a time step, got shape [24]",
    ),
    (
        lambda: Labelling(Split(Sequences(X, X[..., 0])), class_weights="balanced"),
        "class_weights must be None where a target is no single class",
    ),
    (
        lambda: Regression(Split(Sequences(np.concatenate([X, np.nan * ONE], 2), NUMBERS))),
        "feature x3 of x must have a number in the training rows, got NaN alone",
    ),
    (
        lambda: Classification(Split(Sequences(X, LABELS))).encode(X[..., :2]),
        "x must have the 3 features x0, x1, x2, got 2",
    ),
    (
        lambda: Classification(Split(Sequences(X, LABELS))).encode([[1, 2]]),
        "x must hold numbers [N, T, D], as the training rows do",
    ),
    (
        lambda: Classification(Split(Sequences(X, LABELS))).encode(X, static=NUMBERS),
        "static must have the 0 features of training, got 1",
    ),
]


@pytest.mark.parametrize(("make", "words"), BAD, ids=range(len(BAD)))
def test_bad_data_are_refused_in_one_sentence(make: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)) as refusal:
        make()
    assert "\n" not in str(refusal.value)
