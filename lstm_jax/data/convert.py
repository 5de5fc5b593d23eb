"""Arrays as people have them: lists, NumPy, JAX, pandas and polars, made into NumPy arrays."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

CHUNK = 2**22  # numbers that are checked at a time, so that a check needs no copy of the data
NUMBERS = "biuf"  # the kinds of dtypes that are numbers


def chunks(array: np.ndarray) -> Iterator[slice]:
    """Yields slices of axis 0 that cover an array in parts of about `CHUNK` numbers."""
    size = max(1, CHUNK // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), size):
        yield slice(start, start + size)


def read_only(value: Any) -> Any:
    """Returns a view of an array that cannot be written through; other values as they are."""
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def is_ragged(values: Any) -> bool:
    """Returns whether these are rows of their own: a list, or an array of objects, of arrays."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return False
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str):
        return False
    return len(values) > 0 and all(np.ndim(as_array(row)) > 0 for row in values)


def as_array(values: Any) -> np.ndarray:
    """Returns the values as an array, of objects where they have no common type or shape."""
    if hasattr(values, "to_numpy"):  # pandas and polars
        values = values.to_numpy()
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(float), np.nan)
    try:
        array = np.asarray(values)
        mixed = array.dtype.kind == "U" and not isinstance(values, np.ndarray)
        return np.asarray(values, object) if mixed else array  # NumPy makes strings of numbers
    except ValueError:  # lists of different lengths
        array = np.empty(len(values), object)
        array[:] = values
        return array


def numbers(name: str, values: Any) -> np.ndarray:
    """Returns an array of bools, integers or floats; None and missing values become NaN.

    Raises:
      TypeError: a value is not a number; the message names its place.
    """
    array = as_array(values)
    if array.dtype.kind in NUMBERS:
        return array
    if array.dtype.kind not in "OU":
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype}")
    places = np.ndenumerate(array.astype(object, copy=False))
    flat = [_number(name, place, value) for place, value in places]
    whole = bool(flat) and all(isinstance(value, int | np.integer) for value in flat)
    return np.array(flat, np.int64 if whole else np.float64).reshape(array.shape)


def _number(name: str, place: tuple[int, ...], value: Any) -> Any:
    if isinstance(value, bool | int | float | np.bool_ | np.number):
        return value
    if is_missing(value):
        return np.nan
    where = "".join(f"[{n}]" for n in place)
    raise TypeError(f"{name}{where} must be a number, got {_short(value)}")


def is_missing(value: Any) -> bool:
    """Returns whether a value is None, NaN or the missing value of a frame."""
    nan = isinstance(value, float | np.floating) and bool(np.isnan(value))
    return nan or value is None or type(value).__name__ in ("NAType", "NaTType")


def labels(name: str, values: Any) -> np.ndarray:
    """Returns an array of numbers, or of strings with "" where a label is missing.

    Raises:
      TypeError: a label is neither a number nor a string, or some are and some are not.
    """
    array = as_array(values)
    if array.dtype.kind in NUMBERS + "U":
        return array
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    if array.dtype != object:
        raise TypeError(f"{name} must hold numbers or strings, got dtype {array.dtype}")
    if array.dtype == object and any(isinstance(value, str) for value in array.flat):
        for place, value in np.ndenumerate(array):
            if not isinstance(value, str) and not is_missing(value):
                where = "".join(f"[{n}]" for n in place)
                raise TypeError(f"{name}{where} must be a string like others, got {_short(value)}")
        flat = [value if isinstance(value, str) else "" for value in array.flat]
        return np.array(flat, str).reshape(array.shape)
    return numbers(name, array)


def flags(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Returns zeros and ones of a shape, [N, T] or [B], as booleans.

    Raises:
      ValueError: they have another shape, or one is neither 0 nor 1.
    """
    given = numbers(name, values)
    axes = "[N, T]" if len(shape) == 2 else "[B]"
    right = f"{axes} = {list(shape)} zeros and ones"
    if given.shape != shape:
        raise ValueError(f"{name} must be {right}, got {given.dtype} of shape {list(given.shape)}")
    wrong = given[~np.isin(given, (0, 1))]
    if wrong.size:
        raise ValueError(f"{name} must be {right}, got {wrong[0]:g} among them")
    return given.astype(bool)


def _short(value: Any) -> str:
    shape = np.shape(value) if isinstance(value, list | tuple | np.ndarray) else ()
    return f"an array of shape {list(shape)}" if shape else f"{value!r:.60}"


def one_of_each_row(name: str, values: Any, rows: int) -> np.ndarray:
    """Returns an array [N, ...] of numbers or strings with one entry for each of `rows` rows.

    Raises:
      ValueError: it has another number of rows.
    """
    array = labels(name, values)
    if array.shape[:1] != (rows,):
        right = f"an entry for each of {rows} rows"
        raise ValueError(f"{name} must have {right}, got shape {list(array.shape)}")
    return array


def padded(rows: list[np.ndarray], length: int, dtype: Any) -> np.ndarray:
    """Returns the rows [T_i, ...] as one array [N, length, ...], padded with zeros."""
    whole = np.zeros((len(rows), length, *rows[0].shape[1:]), dtype)
    for n, row in enumerate(rows):
        whole[n, : len(row)] = row
    return whole


def to_length(array: np.ndarray, length: int) -> np.ndarray:
    """Returns an array [N, T, ...] cut, or padded with zeros, to `length` time steps."""
    array = array[:, :length]
    behind = [(0, 0), (0, length - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
    return np.pad(array, behind)
