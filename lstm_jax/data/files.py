"""Data in files: npz, csv and parquet."""

import contextlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.data.sequences import Sequences

TABLES = {".csv": "read_csv", ".parquet": "read_parquet"}
ARRAYS = ("x", "lengths", "mask", "static", "weight", "group")  # of an npz file, besides the target


def read(path: str | Path, *, target: str | None = None, **columns: Any) -> Sequences:
    """Returns the sequences of a file.

    Args:
      path: a table, .csv or .parquet, with one row for each time step; or .npz with arrays named as
        the arguments of `Sequences`, of which x is needed.
      target: the column of the targets; of an npz file, the array, "y" by default if there is one.
      **columns: of a table, `id`, `time`, `features` and others as in `Sequences.from_frame`; of an
        npz file, `missing`.

    Raises:
      FileNotFoundError: there is no such file.
      ModuleNotFoundError: a table is to be read where pandas is missing.
      ValueError: the file cannot be read or its contents do not fit; TypeError: a column does not
        hold numbers. Messages name the file, and its line and column.
    """
    path = _existing(path, (".npz", *TABLES))
    if path.suffix in TABLES:
        table = read_table(path)
        if columns.get("id") is None:
            have = ", ".join(map(str, table))
            raise ValueError(f"{path}: id must name the column of the sequences, one of {have}")
        with located(path):
            return Sequences.from_frame(table, target=target, **columns)
    with located(path):
        return _from_arrays(read_arrays(path), target, **columns)


def read_table(path: str | Path) -> Mapping[str, Any]:
    """Returns the columns of a csv or parquet file by name.

    Raises:
      as `read`.
    """
    path = _existing(path, TABLES)
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reading {path} needs pandas: pip install 'lstm_jax[data]'"
        ) from error
    try:
        frame = getattr(pandas, TABLES[path.suffix])(path)
    except (ValueError, OSError, UnicodeError) as error:  # parsers' errors are ValueErrors
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} must be a {path.suffix[1:]} file, got: {reason}") from None
    if path.suffix == ".csv" and not isinstance(frame.index, pandas.RangeIndex):
        raise ValueError(f"{path}: line 2 must have as many fields as the header, got more")
    if not len(frame):
        raise ValueError(f"{path} must have rows, got none below its header")
    return {str(name): frame[name] for name in frame.columns}


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file by name.

    Raises:
      as `read`.
    """
    path = _existing(path, (".npz",))
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: _load(path, file, name) for name in file.files}
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
    arrays: dict[str, np.ndarray], target: str | None, missing: Any = "mask"
) -> Sequences:
    have = ", ".join(arrays)
    if "x" not in arrays:
        raise ValueError(f"an array x must hold the sequences, got {have}")
    if target is not None and target not in arrays:
        raise ValueError(f"target must name an array, one of {have}, got {target!r}")
    y = arrays.get("y" if target is None else target)
    given: dict[str, Any] = {name: arrays[name] for name in ARRAYS if name in arrays}
    return Sequences(**given, y=y, missing=missing)


@contextlib.contextmanager
def located(path: str | Path) -> Iterator[None]:
    """Puts the path of a file before messages of what is within, and lines in place of rows."""
    line = Path(path).suffix == ".csv"

    def moved(match: re.Match) -> str:
        return f"in line {int(match[1]) + 2}" if line else match[0]  # 1 for the header

    try:
        yield
    except (TypeError, ValueError) as error:
        message = re.sub(r"\bin row (\d+)", moved, str(error))
        raise type(error)(f"{path}: {message}") from None
