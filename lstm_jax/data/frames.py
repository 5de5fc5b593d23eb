"""Tables of pandas, polars and pyarrow, and dictionaries of columns: their columns as arrays.

Columns are read by name and by NumPy's protocol; no library of tables is imported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_jax.data import convert


def columns(frame: Any) -> Mapping[str, Any]:
    """Returns the columns of a table by name.

    Raises:
      TypeError: it is no table.
    """
    if isinstance(frame, Mapping):
        return frame
    names = getattr(frame, "column_names", None)  # pyarrow
    names = getattr(frame, "columns", None) if names is None else names
    if names is None:
        raise TypeError(f"frame must be a table of pandas or polars, got {type(frame).__name__}")
    return {str(name): frame[name] for name in names}


def column(columns: Mapping[str, Any], name: str) -> Any:
    """Returns one column.

    Raises:
      ValueError: there is none of this name.
    """
    if name not in columns:
        raise ValueError(f"frame has no column {name!r}, but {', '.join(map(str, columns))}")
    return columns[name]


def names(columns: Mapping[str, Any], name: str) -> np.ndarray:
    """Returns a column of numbers or strings, none of them missing.

    Raises:
      ValueError: the column or one of its entries is missing; TypeError: one is something else.
    """
    labels = convert.labels(f"column {name!r}", column(columns, name))
    gone = labels == "" if labels.dtype.kind == "U" else labels != labels
    if np.any(gone):
        raise ValueError(f"column {name!r} must have no gap, got one in row {int(np.argmax(gone))}")
    return labels


def numbers(columns: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    """Returns columns of numbers, [rows, n] float64.

    Raises:
      ValueError: a column is missing; TypeError: one does not hold numbers.
    """
    if isinstance(names, str):
        raise TypeError(f"columns must be a list of names, got {names!r}")
    parts = [convert.numbers(f"column {name!r}", column(columns, name)) for name in names]
    return np.stack(parts, axis=-1).astype(np.float64)


def constant(
    table: np.ndarray, names: Sequence[str], ids: Sequence[Any], rows_of: list[np.ndarray]
) -> np.ndarray:
    """Returns the row of each series.

    Raises:
      ValueError: a static column changes within a series.
    """
    for name, rows in zip(ids, rows_of, strict=True):
        changed = (table[rows] != table[rows[0]]) & ~np.isnan(table[rows])
        if changed.any():
            row, column = np.argwhere(changed)[0]
            raise ValueError(
                f"static column {names[column]!r} must not change within series {name!r}, got "
                f"{table[rows[row], column]} in row {rows[row]}"
            )
    return table[[rows[0] for rows in rows_of]]
