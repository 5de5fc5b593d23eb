"""Tables and files: rows become sequences; refusals name the file, the line and the column."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lstm_jax.data import Sequences, Series, column_names, read, read_series, read_text

CSV = """id,t,x1,x2,kind
b,1,0.5,1,up
b,2,,2,up
b,4,1.5,3,up
a,1,2.5,4,down
a,2,3.5,5,down
"""
COLUMNS: dict[str, Any] = dict(id="id", time="t", target="kind")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text(CSV)
    return tmp_path / "data.csv"


def same(one: Sequences, other: Sequences) -> None:
    assert one.digest == other.digest and one.names == other.names and one.ids == other.ids


def test_rows_of_an_id_are_a_sequence(path: Path) -> None:
    data = read(path, **COLUMNS)
    assert data.ids == ("b", "a") and data.names == ("x1", "x2")
    assert data.lengths.tolist() == [3, 2]
    np.testing.assert_array_equal(data.x[0], [[0.5, 1], [np.nan, 2], [1.5, 3]])
    np.testing.assert_array_equal(data.x[1, :2], [[2.5, 4], [3.5, 5]])
    assert data.y is not None and data.y.tolist() == ["up", "down"]


def test_tables_of_every_kind_are_read_alike(path: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(path)
    wanted = read(path, **COLUMNS)
    for table in (frame, pl.from_pandas(frame), pa.Table.from_pandas(frame), dict(frame)):
        same(Sequences.from_frame(table, **COLUMNS), wanted)
    frame.to_parquet(tmp_path / "data.parquet")
    same(read(tmp_path / "data.parquet", **COLUMNS), wanted)


def test_columns_have_their_uses(path: Path) -> None:
    frame = pd.read_csv(path).assign(age=[3, 3, 3, 4, 4], patient=list("ppp") + list("qq"))
    options: dict[str, Any] = dict(
        id="id", features=["x2"], static=["age"], weight="age", group="patient"
    )
    data = Sequences.from_frame(frame, target="t", every=True, **options)
    assert data.x[..., 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert data.y.tolist() == [[1, 2, 4], [1, 2, 0]]  # pyright: ignore
    assert data.static.tolist() == [[3], [4]] and data.weight.tolist() == [3, 4]  # pyright: ignore
    assert data.group.tolist() == ["p", "q"]  # pyright: ignore


@pytest.mark.parametrize("use", ["id", "time", "target"])
@pytest.mark.parametrize("part", ["features", "known", "past", "static", ""])
def test_a_column_has_one_use(use: str, part: str, path: Path) -> None:
    """Else a target that is a feature would leak."""
    frame = pd.read_csv(path)
    kind: Any = Sequences if part == "features" else Series
    columns: dict[str, Any] = dict(id="id", time="t", target="x2")
    again = part or ("time" if use != "time" else "id")
    wrong = columns | {again: ["x1", columns[use]] if part else columns[use]}
    first, last = (use, again) if part else sorted((use, again), key=["time", "id", "target"].index)
    words = f"{last} must not name {columns[use]!r}, which {first} names, too: it has one use"
    with pytest.raises(ValueError, match=words):
        kind.from_frame(frame, **wrong)
    if part:
        with pytest.raises(ValueError, match=f"{part} must not name 'x1', which {part} names, too"):
            kind.from_frame(frame, **columns | {part: ["x1", "x1"]})


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("length", "lengths"),
        ("wieght", "weight"),
        ("masks", "mask"),
        ("Y", "y"),
        ("knwon", "known"),
    ],
)
def test_a_misspelt_array_of_an_npz_file_is_refused(name: str, right: str, tmp_path: Path) -> None:
    series = right == "known"
    arrays = {"values" if series else "x": np.ones(3 if series else (3, 2, 1)), name: np.ones(3)}
    np.savez(tmp_path / "data.npz", **arrays)  # pyright: ignore
    with pytest.raises(ValueError, match=f"array '{name}' has no use: did you mean {right}"):
        (read_series if series else read)(tmp_path / "data.npz")


def test_arrays_of_an_npz_file_are_arguments_of_sequences(tmp_path: Path) -> None:
    x, kind, lengths = np.ones((3, 4, 2)), np.array(["a", "b", "a"]), [4, 3, 2]
    np.savez(tmp_path / "data.npz", x=x, kind=kind, lengths=lengths)
    same(read(tmp_path / "data.npz", target="kind"), Sequences(x, kind, lengths=lengths))
    assert read(tmp_path / "data.npz").y is None


def test_series_are_read_from_a_table_and_from_arrays(path: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(path)
    columns: dict[str, Any] = dict(target="x2", id="id", time="t", past=["x1"])
    assert read_series(path, **columns).digest == Series.from_frame(frame, **columns).digest
    values, known = np.arange(6.0).reshape(2, 3), np.ones((2, 5, 1))
    np.savez(tmp_path / "data.npz", values=values, known=known, names=["b", "a"])
    found = read_series(tmp_path / "data.npz", id="names")
    assert found.digest == Series(list(values), known=list(known)).digest
    assert found.ids == ("b", "a")


def test_names_of_columns_and_texts_are_read(path: Path, tmp_path: Path) -> None:
    assert column_names(path) == ("id", "t", "x1", "x2", "kind")
    np.savez(tmp_path / "data.npz", x=np.ones((2, 3)), who=["p", "q"])
    assert column_names(tmp_path / "data.npz") == ("x", "who")
    assert read(tmp_path / "data.npz", id="who").ids == ("p", "q")
    (tmp_path / "text.txt").write_text("Grüße\n", encoding="utf-8")
    assert read_text(tmp_path / "text.txt") == "Grüße\n"


def replaced(old: str, new: str) -> Any:
    def write(folder: Path) -> Path:
        assert old in CSV
        (folder / "data.csv").write_text(CSV.replace(old, new))
        return folder / "data.csv"

    return write


def saved(**arrays: Any) -> Any:
    def write(folder: Path) -> Path:
        np.savez(folder / "data.npz", **arrays)
        return folder / "data.npz"

    return write


def truncated(folder: Path) -> Path:
    path = saved(x=np.ones((30, 40, 2)))(folder)
    path.write_bytes(path.read_bytes()[:5000])
    return path


def garbage(folder: Path) -> Path:
    (folder / "data.parquet").write_text("no parquet")
    return folder / "data.parquet"


OBJECTS = np.array([np.ones(2), np.ones(3)], object)
BAD = [
    (
        replaced("b,4,1.5", "id,t,x1"),
        {"time": None, "features": ["x1"]},
        "data.csv: column 'x1' must hold numbers, got 'x1' in line 4",
    ),
    (
        replaced("1.5", "inf"),
        {},
        "data.csv: column 'x1' must hold finite numbers, got inf in line 4",
    ),
    (
        replaced("b,4", "b,2"),
        {},
        "data.csv: time must increase within sequence 'b': 2.0 in line 4 is there twice",
    ),
    (
        replaced("b,4", "b,0"),
        {},
        "time must increase within sequence 'b': 0.0 in line 4 comes after 2.0; sort the table by",
    ),
    (
        replaced("3,up", "3,down"),
        {},
        "data.csv: column 'kind' must not change within sequence 'b', got 'down' after",
    ),
    (
        replaced("2,up", "2,"),
        {},
        "'kind' must be the same in all rows of sequence 'b', got a missing value in line 3; every",
    ),
    (replaced("a,1", ",1"), {}, "data.csv: column 'id' must have no gap, got one in line 5"),
    (
        replaced("0.5,1", "0.5,1,7"),
        {},
        "data.csv: line 2 must have as many fields as the header, got more",
    ),
    (replaced(CSV, "id,t,x1,kind\n"), {}, "data.csv must have rows, got none below its header"),
    (replaced(CSV, ""), {}, "data.csv must be a csv file, got: No columns to parse from file"),
    (
        replaced("x1", "x1"),
        {"target": "label"},
        "data.csv: frame has no column 'label', but id, t, x1, x2, kind",
    ),
    (
        replaced("x1", "x1"),
        {"id": None},
        "data.csv: id must name the column of the sequences, one of id, t, x1, x2, kind",
    ),
    (
        replaced("x1", "x1"),
        {"features": []},
        "data.csv: features must name a column at least, got none",
    ),
    (
        replaced("x1", "x1"),
        {"static": ["x2"]},
        "data.csv: static column 'x2' must not change within",
    ),
    (truncated, None, "data.npz must be a whole npz file, got: "),
    (garbage, {}, "data.parquet must be a parquet file, got: "),
    (saved(x=OBJECTS), None, "data.npz: array 'x' must hold numbers or strings"),
    (saved(z=np.ones(3)), None, "data.npz: an array x must hold the sequences, got z"),
    (
        saved(x=np.ones((3, 2, 1))),
        {"target": "y"},
        "data.npz: target must name an array, one of x, got 'y'",
    ),
    (
        saved(x=np.ones((3, 2, 1))),
        {"target": "x"},
        "data.npz: target must not name 'x', which x names, too: it has one use",
    ),
    (
        saved(x=np.ones((3, 2, 1)), y=np.ones(2)),
        None,
        "data.npz: y must have an entry for each of 3 rows, got shape [2]",
    ),
    (lambda folder: folder / "none.csv", {}, "path must be a file, got "),
    (lambda folder: folder / "none.xlsx", {}, "path must end in .npz or .csv or .parquet, got "),
]


@pytest.mark.parametrize(("write", "options", "words"), BAD, ids=range(len(BAD)))
def test_bad_files_are_refused_in_one_sentence(
    write: Any, options: Any, words: str, tmp_path: Path
) -> None:
    table = {} if options is None or "npz" in words else COLUMNS
    with pytest.raises((OSError, TypeError, ValueError), match=re.escape(words)) as refusal:
        read(write(tmp_path), **table | (options or {}))
    assert "\n" not in str(refusal.value)
