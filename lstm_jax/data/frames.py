"""Tables of pandas, polars and pyarrow, and dictionaries of columns: their columns as arrays.

Columns are read by name and by NumPy's protocol. A library of tables is imported to make one.
"""

import importlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data import convert, times

SHOWN = 8  # names in a message


class Origin(NamedTuple):
    """The table that data came from.

    Attributes:
      library: "pandas" or "polars"; "" for all others.
      id: the column of names.
      time: the column of times.
    """

    library: str = ""
    id: str = "id"
    time: str = "time"


def origin(frame: Any, id: str | None, time: str | None) -> Origin:
    """Returns the origin of data from a table; id and time are columns of it, or None."""
    library = type(frame).__module__.partition(".")[0]
    library = library if library in ("pandas", "polars") else ""
    return Origin(library, id or Origin().id, time or Origin().time)


def made(library: str, columns: dict[str, np.ndarray]) -> Any:
    """Returns a table of "pandas" or "polars"; the columns themselves for others."""
    if not library:
        return columns
    frames = importlib.import_module(library)
    if library == "polars":  # which has no seconds
        columns = {
            name: values.astype("datetime64[ms]") if values.dtype.kind == "M" else values
            for name, values in columns.items()
        }
    return frames.DataFrame(columns)


def columns(frame: Any) -> Mapping[str, Any]:
    """Returns the columns of a table by name.

    Raises:
      ValueError: it has no rows, or columns of several lengths; TypeError: it is no table.
    """
    found = _columns(frame)
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"columns of frame must have the same length, got {got}")
    if not any(lengths.values()):
        raise ValueError("frame must have rows, got none")
    return found


def _columns(frame: Any) -> Mapping[str, Any]:
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
      ValueError: no column has this name.
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


def check_lists(**lists: Any) -> None:
    """Raises TypeError if an argument is the name of a column instead of a list of names."""
    for argument, names in lists.items():
        if isinstance(names, str):
            right = f"a list of columns, such as [{names!r}]"
            raise TypeError(f"{argument} must be {right}, got {names!r}")


def check_uses(single: Mapping[str, str | None], several: Mapping[str, Any]) -> None:
    """Checks that every column has one use: a target among the features would be a leak.

    Args:
      single: the arguments that name a column.
      several: the arguments that name a list of columns.

    Raises:
      ValueError: a column is named twice; TypeError: a list is a string.
    """
    check_lists(**several)
    named = [(argument, name) for argument, name in single.items() if name is not None]
    named += [(argument, name) for argument, names in several.items() for name in names or ()]
    used: dict[str, str] = {}
    for argument, name in named:
        if name in used:
            raise ValueError(
                f"{argument} must not name {name!r}, which {used[name]} names, too: it has one use"
            )
        used[name] = argument


def names_of(argument: str, given: Any) -> tuple[str, ...]:
    """Returns the names of the columns of a table, or of a list of them; () for arrays.

    Raises:
      ValueError: two tables of the list have different columns.
    """
    tables = given if isinstance(given, list | tuple) else [given]
    found = [names for table in tables if (names := _names_of(table))]
    for names in found[1:]:
        check_names(argument, found[0], names)
    return found[0] if found else ()


def _names_of(table: Any) -> tuple[str, ...]:
    """Returns the names of columns; () for none, and for the numbers that pandas gives them."""
    names = getattr(table, "column_names", getattr(table, "columns", ()))
    return tuple(names) if all(isinstance(name, str) for name in names) else ()


def names_in_step(x_t: Any) -> tuple[str, ...]:
    """Returns the names of the features of a time step: of a table, or of a row of pandas."""
    row = getattr(x_t, "index", ()) if getattr(x_t, "ndim", 0) == 1 else ()
    named = len(row) and all(isinstance(name, str) for name in row)
    return tuple(row) if named else names_of("x_t", x_t)


def numbered(names: Sequence[str], width: int) -> tuple[str, ...]:
    """Returns the names of features; x0, x1, .. where they have none."""
    return tuple(names) or tuple(f"x{d}" for d in range(width))


def check_names(argument: str, names: Sequence[str], others: Sequence[str]) -> None:
    """Raises ValueError where both have names, and these are not the same in the same order."""
    if names and others and tuple(names) != tuple(others):
        pairs = enumerate(itertools.zip_longest(names, others))
        start = next(n for n, (name, other) in pairs if name != other) // SHOWN * SHOWN
        wanted, got = (", ".join(part[start:][:SHOWN]) for part in (names, others))
        wanted, got = (f".., {part}" if start else part for part in (wanted, got or "none"))
        raise ValueError(f"{argument} must be {wanted} in this order, got {got}")


def numbers(columns: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    """Returns columns of numbers, [rows, n] float64.

    Raises:
      ValueError: a column is missing; TypeError: one does not hold numbers.
    """
    return np.stack([_numbers(name, column(columns, name)) for name in names], axis=-1)


def _numbers(name: str, values: Any) -> np.ndarray:
    """Returns a column as float64; strings that spell numbers are read."""
    array = convert.as_array(values)
    if array.dtype.kind not in convert.NUMBERS:
        array = [_number(name, row, value) for row, value in enumerate(array)]
    array = np.asarray(array, np.float64)
    if np.isinf(array).any():
        row = int(np.argmax(np.isinf(array)))
        raise ValueError(f"column {name!r} must hold finite numbers, got {array[row]} in row {row}")
    return array


def _number(name: str, row: int, value: Any) -> float:
    if convert.is_missing(value):
        return np.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        got = f"{value!r:.60} in row {row}"
        raise TypeError(
            f"column {name!r} must hold numbers, got {got}: encode it, or leave it out of features"
        ) from None


def members(names: np.ndarray) -> tuple[tuple[Any, ...], list[np.ndarray]]:
    """Returns the different names in the order in which they appear, and the rows of each."""
    unique = np.unique(names, return_index=True, return_inverse=True, return_counts=True)
    ids, first, member, counts = unique
    rows_of = np.split(np.argsort(member, kind="stable"), np.cumsum(counts)[:-1])
    order = np.argsort(first)
    return tuple(ids[order].tolist()), [rows_of[n] for n in order]


def sequences_of(
    columns: Mapping[str, Any],
    *,
    id: str,
    time: str | None,
    features: Sequence[str] | None,
    target: str | None,
    every: bool,
    static: Sequence[str],
    weight: str | None,
    group: str | None,
) -> dict[str, Any]:
    """Returns the arguments of `Sequences` for the rows of a table; see `Sequences.from_frame`.

    Raises:
      ValueError: a column is missing or does not fit; TypeError: one does not hold numbers.
    """
    check_uses({"time": time, "id": id, "target": target}, {"features": features, "static": static})
    used = [id, time, target, weight, group, *static, *(features or ())]
    for name in filter(None, used):
        column(columns, name)  # before any other is read
    ids, rows_of = members(names(columns, id))
    if time is not None:
        when = times.as_times(column(columns, time))
        for name, rows in zip(ids, rows_of, strict=True):
            times.check_order(f"sequence {name!r}", when[rows], rows, table=True)
    if features is None:
        features = [name for name in columns if name not in used]
    if not features:
        raise ValueError("features must name a column at least, got none")
    table = numbers(columns, features)

    def single(name: str | None, hint: str = "") -> Any:
        """Returns the value of a column in each sequence, within which it does not change."""
        if name is None:
            return None
        values = convert.labels(f"column {name!r}", column(columns, name))
        return _unchanging(name, values, ids, rows_of, hint)

    y = single(None if every else target, "; every=True takes a target at every row")
    if every and target is not None:
        values = convert.labels(f"column {target!r}", column(columns, target))
        y = [values[rows] for rows in rows_of]
    fixed = constant(numbers(columns, static), static, ids, rows_of) if static else None
    return {
        "x": [table[rows].astype(np.float32) for rows in rows_of],
        "y": y,
        "static": fixed,
        "weight": single(weight),
        "group": single(group),
        "names": tuple(features),
        "static_names": tuple(static),
        "ids": ids,
    }


def _unchanging(
    name: str, values: np.ndarray, ids: Sequence[Any], rows_of: list[np.ndarray], hint: str
) -> np.ndarray:
    gone = values == "" if values.dtype.kind == "U" else values != values
    for id, rows in zip(ids, rows_of, strict=True):
        own = values[rows]
        changed = (own != own[0]) & ~gone[rows]
        if gone[rows].any() and not gone[rows].all():
            row = rows[np.argmax(gone[rows])]
            raise ValueError(
                f"column {name!r} must be the same in all rows of sequence {id!r}, got a missing "
                f"value in row {row}{hint}"
            )
        if changed.any():
            at = int(np.argmax(changed))
            raise ValueError(
                f"column {name!r} must not change within sequence {id!r}, got {own.item(at)!r} "
                f"after {own.item(0)!r} in row {rows[at]}{hint}"
            )
    return values[[rows[0] for rows in rows_of]]


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
