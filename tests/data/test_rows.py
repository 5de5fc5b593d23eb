"""Sequences: one form for whatever holds them, splits without overlap, refusals by name."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest

import lstm_jax as lj
from lstm_jax.data import Sequences, Series, Split

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5, 2))
LABELS = np.array(["a", "b", "b"] * 4)
RAGGED = [X[n, : 2 + n % 4] for n in range(12)]


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.tolist(),
        jnp.asarray(X, jnp.float32),
        list(X),
        [pd.DataFrame(row) for row in X],
        [pl.DataFrame(row) for row in X],
        X.astype(">f8"),
        np.asfortranarray(X),
        X.astype(object),
    ],
    ids=["numpy", "lists", "jax", "rows", "pandas", "polars", "big-endian", "fortran", "object"],
)
def test_numbers_have_one_form_whatever_holds_them(x: Any) -> None:
    data = Sequences(x)
    np.testing.assert_array_equal(data.x, X.astype(np.float32))
    assert data.x.dtype == np.float32
    assert data.lengths.tolist() == [5] * 12
    assert data.mask is None


def test_one_number_a_time_step_and_symbols() -> None:
    assert Sequences(X[..., 0]).x.shape == (12, 5, 1)
    assert Sequences([[0.5, 1], [2.0]]).x.tolist() == [[[0.5], [1]], [[2], [0]]]
    for symbols in ([[3, 1, 2], [0, 2, 2]], np.array([[3, 1, 2], [0, 2, 2]], np.uint8)):
        data = Sequences(symbols)
        assert data.x.dtype == np.int32 and data.x.tolist() == [[3, 1, 2], [0, 2, 2]]
    assert Sequences([[3, 1], [0]]).x.tolist() == [[3, 1], [0, 0]]
    assert Sequences(np.array([[3, 1], [0, -1]]), lengths=[2, 1]).x.dtype == np.int32


def test_float32_arrays_are_not_copied() -> None:
    x = X.astype(np.float32)
    assert np.shares_memory(Sequences(x).x, x)


@pytest.mark.parametrize("data", [Sequences(X, LABELS), Series([1.0, 2.0])])
def test_attributes_cannot_be_written(data: Any) -> None:
    """Else scales and hashes would be those of other values."""
    for name in {"x", "y", "lengths", "values", "offsets"} & vars(data).keys():
        with pytest.raises(ValueError, match="read-only"):
            getattr(data, name)[0] = 0


def test_the_digest_is_that_of_the_contents() -> None:
    one = Sequences(X, LABELS)
    assert one.digest == Sequences(X.tolist(), list(LABELS)).digest
    others = [
        Sequences(X + (X[3, 2, 1] == X), LABELS),
        Sequences(X, LABELS[::-1]),
        Sequences(X, LABELS, lengths=[5] * 11 + [4]),
        Sequences(X, LABELS, weight=np.ones(12)),
        Sequences(X, LABELS, missing="indicator"),
    ]
    assert len({data.digest for data in (one, *others)}) == 6
    assert one.split(seed=0).digest != one.split(seed=1).digest


def test_a_time_step_without_a_number_is_masked_unless_it_has_indicators() -> None:
    x = X.copy()
    x[3, 1], x[4, 2, 0] = np.nan, np.nan
    data = Sequences(x)
    assert data.mask is not None
    assert np.argwhere(~data.mask).tolist() == [[3, 1]]
    assert Sequences(x, missing="indicator").mask is None


def test_masked_values_are_missing() -> None:
    x = np.ma.masked_array(X, X > 1)
    np.testing.assert_array_equal(np.isnan(Sequences(x).x), X > 1)


def test_labels_of_frames() -> None:
    for labels in (
        pd.Series(LABELS),
        pd.Categorical(LABELS),
        pl.Series(LABELS),
        np.char.encode(LABELS),
    ):
        np.testing.assert_array_equal(Sequences(X, labels).y, LABELS)


# Splits. ------------------------------------------------------------------------------------------


def rows_of(split: Split) -> np.ndarray:
    return np.concatenate(list(split.rows.values()))


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("stratify", [False, True])
def test_every_row_is_in_one_part(seed: int, stratify: bool) -> None:
    y = np.array(["a"] * 60 + ["b"] * 40)
    split = Sequences(np.zeros((100, 2, 1)), y).split(seed=seed, stratify=stratify)
    assert sorted(rows_of(split)) == list(range(100))
    assert [len(rows) for rows in split.rows.values()] == [70, 10, 20]
    if stratify:
        counts = {name: np.sum(y[rows] == "b") for name, rows in split.rows.items()}
        assert counts == {"train": 28, "validation": 4, "test": 8}


def test_a_group_is_on_one_side() -> None:
    group = np.repeat(["p", "q", "r", "s", "t", "u", "v", "w", "x", "y"], 7)
    split = Sequences(np.zeros((70, 2, 1)), group=group).split(0.2, 0.3, seed=3)
    parts = [set(group[rows]) for rows in split.rows.values()]
    assert sum(map(len, parts)) == 10
    assert [len(part) for part in parts] == [5, 2, 3]


def test_a_given_test_set_is_joined_and_padded() -> None:
    train, test = Sequences(RAGGED, LABELS), Sequences(np.ones((3, 9, 2)), ["a", "b", "c"])
    for split in (train.split(0.25, test=test), Split(train, test=test)):
        rows = split.rows["test"]
        assert rows.tolist() == [12, 13, 14]
        assert split.data.x.shape == (15, 9, 2)
        np.testing.assert_array_equal(split.data.x[rows], 1)
        assert split.data.lengths.tolist() == [len(row) for row in RAGGED] + [9] * 3
        assert split.data.y is not None and split.data.y[12:].tolist() == ["a", "b", "c"]
    assert [len(rows) for rows in Split(train, test=test).rows.values()] == [12, 0, 3]


# Refusals. ----------------------------------------------------------------------------------------

HOLE = X.copy()
HOLE[2, 1, 1] = np.nan
MISSING: Any = "drop"
ARRAY: Any = X
DATES = np.array(["2024-01-31"] * 12, "M8[D]")
BAD = [
    (
        lambda: Sequences(None),
        "x must be an array [N, T, D] or a list of sequences [T_i, D], got No",
    ),
    (
        lambda: Sequences({"a": X}),
        "got dict: of a table take Sequences.from_frame(table, id=...)",
    ),
    (
        lambda: Sequences(pd.DataFrame({"a": [1]})),
        "got DataFrame: of a table take Sequences.from_f",
    ),
    (lambda: Sequences(X[:, :0]), "x must be [N, T, D] or [N, T], none 0, got shape [12, 0, 2]"),
    (lambda: Sequences([X[0], X[0, :0]]), "x[1] must have at least one time step, got none"),
    (lambda: Sequences(X, DATES), "y must hold numbers or strings, got dtype datetime64[D]"),
    (lambda: Sequences(X, group=[np.nan] + [1] * 11), "group[0] must be a label, got none"),
    (lambda: Split(ARRAY), "train must be Sequences, got ndarray"),
    (lambda: Sequences([]), "x must hold at least one sequence, got none"),
    (
        lambda: Sequences([X[0], X[1, :, :1]]),
        r"x[1] must have the shape [T_i, D] with the same D as x[0], got [5, 1] after [5, 2]",
    ),
    (lambda: Sequences([X[0].T, X[1, :3].T]), r"time comes first: transpose each sequence"),
    (lambda: Sequences(np.zeros(5)), "x must be [N, T, D] or [N, T], none 0, got shape [5]"),
    (
        lambda: Sequences(np.zeros((2, 3, 4, 5))),
        "x must be [N, T, D] or [N, T], none 0, got shape [2, 3, 4, 5]",
    ),
    (lambda: Sequences([[0.1, "x"], [1.0, 2.0]]), "x[0][1] must be a number, got 'x'"),
    (lambda: Sequences(np.array([[[1.0, {}]]], object)), "x[0][0][1] must be a number, got {}"),
    (lambda: Sequences(np.array([["a", "b"]])), "x[0][0] must be a number, got 'a'"),
    (lambda: Sequences([[1, -2]]), "x[0, 1] must be a symbol of at least 0, got -2"),
    (lambda: Sequences([[1, 2]], static=[1.0]), "static must be None where x holds symbols"),
    (lambda: Sequences(X * np.inf), "x at row 0, time step 0, feature x0 must be finite, or NaN"),
    (lambda: Sequences(X * 1e300), "x at row 0, time step 0, feature x0 must be finite, or NaN"),
    (
        lambda: Sequences(HOLE, missing="refuse"),
        "x at row 2, time step 1, feature x1 must be finite, got nan",
    ),
    (lambda: Sequences(X * np.nan), "row 0 of x must have a number at one time step, got none"),
    (
        lambda: Sequences(X, missing=MISSING),
        "missing must be one of mask, indicator, refuse, got 'drop'",
    ),
    (
        lambda: Sequences(X, lengths=[5] * 11 + [6]),
        "lengths[11] must be between 1 and the 5 time steps of x, got 6",
    ),
    (
        lambda: Sequences(X, lengths=[0] * 12),
        "lengths[0] must be between 1 and the 5 time steps of x, got 0",
    ),
    (
        lambda: Sequences(X, lengths=[5] * 3),
        "lengths must have an entry for each of 12 rows, got shape [3]",
    ),
    (lambda: Sequences(X, lengths=[5.0] * 12), "lengths must be [N] integers, got float64 [12]"),
    (lambda: Sequences(RAGGED, lengths=[2] * 12), "lengths must be None for a list of sequences"),
    (
        lambda: Sequences(X, mask=np.ones((12, 4))),
        "mask must be [N, T] = [12, 5] zeros and ones, got float64 of shape [12, 4]",
    ),
    (
        lambda: Sequences(X, mask=np.full((12, 5), 2)),
        "mask must be [N, T] = [12, 5] zeros and ones",
    ),
    (
        lambda: Sequences(X, mask=np.zeros((12, 5))),
        "row 0 of x must have a number at one time step",
    ),
    (lambda: Sequences(X, LABELS[:5]), "y must have an entry for each of 12 rows, got shape [5]"),
    (lambda: Sequences(X, ["a", 1] * 6), "y[1] must be a string like others, got 1"),
    (lambda: Sequences(X, np.array([object()] * 12)), "y[0] must be a number, got <object"),
    (
        lambda: Sequences(RAGGED, [np.zeros(len(row) + (n == 3)) for n, row in enumerate(RAGGED)]),
        "y[3] must have the 5 time steps of x[3], got 6",
    ),
    (lambda: Sequences(X, static=["a"] * 12), "static must be [N, S] numbers, got <U1 [12]"),
    (
        lambda: Sequences(X, weight=[-1.0] + [1.0] * 11),
        "weight[0] must be finite and at least 0, got -1.0",
    ),
    (
        lambda: Sequences(X, weight=[0] * 12),
        "weight must be above 0 for one row at least, got zeros",
    ),
    (lambda: Sequences(X, names=("a",)), "names must name the 2 features of x, got ['a']"),
    (lambda: Sequences(X[:2]).split(), "the number of rows must be at least 3 for 3 parts, got 2"),
    (
        lambda: Sequences(X, group=[0, 1] * 6).split(),
        "the number of groups must be at least 3 for 3 parts, got 2",
    ),
    (lambda: Sequences(X).split(1.5), "validation must be a share of the rows in [0, 1), got 1.5"),
    (
        lambda: Sequences(X).split(test=-0.1),
        "test must be a share of the rows in [0, 1) or Sequences, got -0.1",
    ),
    (
        lambda: Sequences(X).split(0.5, 0.5),
        "validation and test must leave rows to train, got 0.5 + 0.5",
    ),
    (lambda: Sequences(X).split(seed=-1), "seed must be an integer of at least 0, got -1"),
    (lambda: Sequences(X).split(stratify=True), "stratify needs y with one label a row, got none"),
    (
        lambda: Sequences(X, np.arange(12) / 7).split(stratify=True),
        "stratify needs labels, got y with fractions: leave stratify out",
    ),
    (
        lambda: Sequences(X, LABELS).split(0.05, stratify=True),
        "validation=0.05 must be large enough for one row of a label",
    ),
    (
        lambda: Sequences(X, LABELS, group=LABELS).split(stratify=True),
        "stratify must be False where rows have a group",
    ),
    (
        lambda: Split(Sequences(X), test=Sequences(X[..., :1])),
        "all parts of a split must have the same features",
    ),
    (
        lambda: Split(Sequences(X, LABELS), test=Sequences(X)),
        "y must be given for all parts of a split or for none",
    ),
    (lambda: Sequences([X, X]), f"x[0] must be [T_i, D] or [T_i], got shape {list(X.shape)}"),
    (lambda: Sequences(X, symbols=True), "symbols must be None or False where x holds numbers"),
]


@pytest.mark.parametrize(("make", "words"), BAD, ids=range(len(BAD)))
def test_bad_data_are_refused_in_one_sentence(make: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_integers_are_symbols_unless_they_are_said_to_be_numbers() -> None:
    counts: Any = np.arange(6).reshape(2, 3)
    assert Sequences(counts).x.shape == (2, 3)
    np.testing.assert_array_equal(
        Sequences(counts, symbols=False).x, counts[..., None].astype(np.float32)
    )


def test_packing_is_part_of_data() -> None:
    assert lj.data.packing is lj.packing
