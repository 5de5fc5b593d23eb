"""Data in files: npz, csv and parquet."""

import contextlib
import difflib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.data import frames
from lstm_jax.data.sequences import Sequences
from lstm_jax.data.series import Series

TABLES = {".csv": "read_csv", ".parquet": "read_parquet"}
ARRAYS = ("x", "lengths", "mask", "static", "weight", "group")  # of an npz file, besides the target
COVARIATES = ("time", "known", "past", "static")  # of series in an npz file
ALIKE = 0.75  # similarity of names, above which one is the other misspelt


def read(path: str | Path, *, target: str | None = None, **columns: Any) -> Sequences:
    """Returns the sequences of a file.

    Args:
      path: a table, .csv or .parquet, with one row for each time step; or .npz with an array x, and
        lengths, mask, static, weight and group as in `Sequences` where they are needed.
      target: the column of the targets; of an npz file, the array, "y" by default if there is one.
      **columns: of a table, `id`, `time`, `features` and others as in `Sequences.from_frame`; of an
        npz file, `missing`, and as `id` the array of the names of the rows.

    Raises:
      FileNotFoundError: the file does not exist.
      ModuleNotFoundError: a table is to be read where pandas is missing.
      ValueError: the file cannot be read or its contents do not fit; TypeError: a column does not
        hold numbers. Messages name the file, and its line and column.
    """
    found = _contents(path)
    with located(path):
        if Path(path).suffix == ".npz":
            return _from_arrays(found, target, **columns)
        _check_named("id", columns.get("id"), "the sequences", found)
        return Sequences.from_frame(found, target=target, **columns)


def read_series(path: str | Path, *, target: str | None = None, **columns: Any) -> Series:
    """Returns the series of a file.

    Args:
      path: a table, .csv or .parquet, with one row for each series and time; or .npz with an array
        of values [T] or [N, T], and time, known, past and static as in `Series`.
      target: the column of the values; of an npz file, the array, "values" by default.
      **columns: of a table, `id`, `time`, `known` and others as in `Series.from_frame`; of an npz
        file, as `id` the array of the names of the series.

    Raises:
      as `read`.
    """
    found = _contents(path)
    with located(path):
        if Path(path).suffix == ".npz":
            return _series_of(found, target or "values", **columns)
        _check_named("target", target, "the values", found)
        return Series.from_frame(found, target=str(target), **columns)


def _contents(path: str | Path) -> Any:
    """Returns the columns of a table, or the arrays of an npz file, by name."""
    path = _existing(path, (".npz", *TABLES))
    return read_arrays(path) if path.suffix == ".npz" else read_table(path)


def _check_named(argument: str, name: str | None, content: str, columns: Any) -> None:
    if name is None:
        have = ", ".join(map(str, columns))
        raise ValueError(f"{argument} must name the column of {content}, one of {have}")


def read_text(path: str | Path) -> str:
    """Returns the text of a file in UTF-8.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: its bytes are no UTF-8; the message names the first that is not.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file, got {str(path)!r}")
    content = path.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ValueError(
            f"{path} must be text in UTF-8, got byte {byte:#04x} in line {line}"
        ) from None


def column_names(path: str | Path) -> tuple[str, ...]:
    """Returns the names of the columns of a table, or of the arrays of an npz file.

    Raises:
      as `read`.
    """
    path = _existing(path, (".npz", *TABLES))
    if path.suffix == ".npz":
        return tuple(_opened(path, lambda file: list(file.files)))
    return tuple(_frame(path, header=True).columns.astype(str))


def read_table(path: str | Path) -> Mapping[str, Any]:
    """Returns the columns of a csv or parquet file by name.

    Raises:
      as `read`.
    """
    path = _existing(path, TABLES)
    frame = _frame(path)
    if not len(frame):
        raise ValueError(f"{path} must have rows, got none below its header")
    return {str(name): frame[name] for name in frame.columns}


def _frame(path: Path, header: bool = False) -> Any:
    """Returns the table of a file, or its columns without most rows."""
    some = {"nrows": 1} if header and path.suffix == ".csv" else {}
    try:
        import pandas

        frame = getattr(pandas, TABLES[path.suffix])(path, **some)
    except ImportError as error:  # pandas reads Parquet by pyarrow
        needed = "pandas" if path.suffix == ".csv" else "pandas and pyarrow"
        raise ImportError(f"reading {path} needs {needed}: pip install 'lstm_jax[data]'") from error
    except (ValueError, OSError, UnicodeError) as error:  # parsers' errors are ValueErrors
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} must be a {path.suffix[1:]} file, got: {reason}") from None
    if path.suffix == ".csv" and not isinstance(frame.index, pandas.RangeIndex):
        raise ValueError(f"{path}: line 2 must have as many fields as the header, got more")
    return frame


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file by name.

    Raises:
      as `read`.
    """
    path = _existing(path, (".npz",))
    return _opened(path, lambda file: {name: _load(path, file, name) for name in file.files})


def _opened(path: Path, take: Callable[[Any], Any]) -> Any:
    """Returns what `take` makes of an open npz file."""
    if not zipfile.is_zipfile(path):  # NumPy takes any other file for a pickle
        raise ValueError(f"{path} must be a whole npz file, got: no zip archive, or a part of one")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return take(file)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{path} must be a whole npz file, got: {error}") from None


def _load(path: Path, file: Any, name: str) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:  # object arrays are pickles, which may run code
        if "allow_pickle" not in str(error):
            raise ValueError(f"{path} must be a whole npz file, got: {error}") from None
        right = "numbers or strings: pad rows of different lengths, and save their lengths"
        raise ValueError(f"{path}: array {name!r} must hold {right}; got objects") from None


def _existing(path: str | Path, suffixes: Any) -> Path:
    path = Path(path)
    if path.suffix not in suffixes:
        right = " or ".join(suffixes)
        raise ValueError(f"path must end in {right}, got {str(path)!r}")
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file, got {str(path)!r}")
    return path


def _from_arrays(
    arrays: dict[str, Any], target: str | None, missing: Any = "mask", id: str | None = None
) -> Sequences:
    _check_arrays(arrays, ARRAYS, target=target or "y", id=id)
    if "x" not in arrays:
        raise ValueError(f"an array x must hold the sequences, got {', '.join(arrays)}")
    y = arrays.get("y") if target is None else _array(arrays, "target", target)
    ids = None if id is None else _array(arrays, "id", id)
    given: dict[str, Any] = {name: arrays[name] for name in ARRAYS if name in arrays}
    return Sequences(**given, y=y, missing=missing, ids=None if ids is None else ids.tolist())


def _series_of(arrays: dict[str, Any], target: str, id: str | None = None) -> Series:
    _check_arrays(arrays, COVARIATES, target=target, id=id)
    values = _array(arrays, "target", target)
    many = values.ndim == 2
    ids = None if id is None else _array(arrays, "id", id).tolist()
    beside: dict[str, Any] = {
        name: list(arrays[name]) if many and name != "static" else arrays[name]
        for name in COVARIATES
        if name in arrays
    }
    return Series(list(values) if many else values, ids=ids, **beside)


def _check_arrays(arrays: dict[str, Any], known: tuple[str, ...], **named: str | None) -> None:
    """Raises ValueError for an array of two uses, or with a name that is a known one misspelt."""
    frames.check_uses({name: name for name in known} | named, {})
    absent = {*known, named["target"]} - arrays.keys()
    for name in arrays.keys() - {*known, *named.values()}:
        for alike in difflib.get_close_matches(name.lower(), absent, n=1, cutoff=ALIKE):
            raise ValueError(f"array {name!r} has no use: did you mean {alike}?")


def _array(arrays: dict[str, Any], argument: str, name: str) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"{argument} must name an array, one of {', '.join(arrays)}, got {name!r}")
    return arrays[name]


@contextlib.contextmanager
def located(path: str | Path) -> Iterator[None]:
    """Adds the path of a file to messages of errors within, and lines in place of rows."""
    line = Path(path).suffix == ".csv"

    def moved(match: re.Match) -> str:
        return f"in line {int(match[1]) + 2}" if line else match[0]  # 1 for the header

    try:
        yield
    except (TypeError, ValueError) as error:
        message = re.sub(r"\bin row (\d+)", moved, str(error))
        raise type(error)(f"{path}: {message}") from None
