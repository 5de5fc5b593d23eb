"""Sequences: rows of numbers or symbols with their targets, checked and in one form."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np

from lstm_jax.data import convert, frames, splits
from lstm_jax.data.digest import digest

Missing = Literal["mask", "indicator", "refuse"]
MISSING: tuple[Missing, ...] = ("mask", "indicator", "refuse")


@dataclasses.dataclass(frozen=True, eq=False, repr=False, init=False)
class Sequences:
    """N sequences, one for each row, with their targets and features.

    Floats are stored as float32 and symbols as int32. An array that has this dtype already is not
    copied: it must not be changed later, since scales and the hash are those of its first values.
    The attributes are read-only. Values after the end of a sequence and where `mask` is False count
    nowhere.

    Attributes:
      x: [N, T, D] float32, NaN where a number is missing; or [N, T] int32 symbols.
      lengths: [N] int32, the time steps of each sequence.
      mask: [N, T] bool, False at time steps that hold the state; None without such.
      y: [N, ...] or [N, T, ...], the targets as they were given; None without.
      static: [N, S] float32, features that are constant within a sequence; None without.
      weight: [N] float32, the weight of each row; None if all are equal.
      group: [N], rows of one group are in one part of a split; None without.
      missing: "mask" holds the state where a whole time step is missing, and replaces other missing
        numbers by the mean; "indicator" replaces all and adds, for each of the D, an input that is
        1 where its number was missing; "refuse" accepts none.
      names: the names of the D features; () without.
      static_names: the names of the S static features; () without.
      ids: the names of the rows; None without.
    """

    x: np.ndarray
    lengths: np.ndarray
    mask: np.ndarray | None
    y: np.ndarray | None
    static: np.ndarray | None
    weight: np.ndarray | None
    group: np.ndarray | None
    missing: Missing
    names: tuple[str, ...]
    static_names: tuple[str, ...]
    ids: tuple[Any, ...] | None

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        static: Any = None,
        weight: Any = None,
        group: Any = None,
        missing: Missing = "mask",
        names: tuple[str, ...] | None = None,
        static_names: tuple[str, ...] | None = None,
        ids: tuple[Any, ...] | None = None,
        symbols: bool | None = None,
    ):
        """Checks the arrays and brings them into one form.

        Args:
          x: numbers [N, T, D] or [N, T], integer symbols [N, T], or a list of sequences [T_i, D] or
            [T_i] of different lengths: of NumPy, JAX, pandas or polars, or nested lists.
          y: one target a row, [N] or [N, K], or one a time step, [N, T] or [N, T, K], or a list of
            those for each row; labels may be strings.
          lengths: [N] time steps of each sequence, where x is one array.
          mask: [N, T], False at time steps that do not count.
          static: [N, S] or [N] numbers.
          weight: [N] numbers of at least 0.
          group: [N] labels.
          missing: the use of missing numbers.
          names: the names of the features; by default those of the columns of a list of tables. A
            task refuses rows whose features have other names than those that trained it.
          static_names: the names of the static features, likewise.
          ids: [N] names of the rows.
          symbols: False where integers [N, T] are numbers, such as counts; they are symbols by
            default.

        Raises:
          ValueError: a shape or a value does not fit; TypeError: something is not a number.
        """
        if missing not in MISSING:
            raise ValueError(f"missing must be one of {', '.join(MISSING)}, got {missing!r}")
        static_names = tuple(static_names or frames.names_of("static", static))
        names, (x, own_lengths) = tuple(names or frames.names_of("features", x)), _inputs(x)
        if symbols and x.ndim == 3:
            raise ValueError("symbols must be None or False where x holds numbers, got True")
        if symbols is False and x.ndim == 2:
            x = x.astype(np.float32)[..., None]
        rows, longest = x.shape[:2]
        if own_lengths is not None and lengths is not None:
            raise ValueError("lengths must be None for a list of sequences, which have their own")
        lengths = _lengths(own_lengths if lengths is None else lengths, rows, longest)
        mask = None if mask is None else convert.flags("mask", mask, (rows, longest))
        if x.ndim == 3:
            mask = _check_numbers(x, lengths, mask, missing, names)
        else:
            x = _symbols(x, lengths, mask)
            if static is not None:
                raise ValueError("static must be None where x holds symbols, got numbers too")
        _check_steps(lengths, mask)
        stored = {
            "x": x,
            "lengths": lengths,
            "mask": mask,
            "y": None if y is None else _targets(y, lengths, longest),
            "static": None if static is None else _static(static, rows),
            "weight": None if weight is None else _weight(weight, rows),
            "group": None if group is None else _group(group, rows),
            "missing": missing,
            "names": names,
            "static_names": static_names,
            "ids": None if ids is None else tuple(ids),
        }
        for name, value in stored.items():
            object.__setattr__(self, name, convert.read_only(value))

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        id: str,
        time: str | None = None,
        features: Sequence[str] | None = None,
        target: str | None = None,
        every: bool = False,
        static: Sequence[str] = (),
        weight: str | None = None,
        group: str | None = None,
        missing: Missing = "mask",
    ) -> Self:
        """Returns the sequences of a table with one row for each time step.

        Args:
          frame: of pandas, polars or pyarrow, or a dictionary of columns.
          id: the column that names the sequence of a row.
          time: the column of dates or numbers, in increasing order within each sequence; None where
            rows are in order.
          features: the columns of the inputs; all columns that are not named here by default.
          target: the column of the targets, the same in all rows of a sequence.
          every: whether the target has a value at every time step.
          static: columns of numbers that are the same in all rows of a sequence.
          weight: a column, the same in all rows of a sequence; so is that of `group`.
          group: as in `Sequences`.
          missing: as in `Sequences`.

        Raises:
          ValueError: a column is missing or changes within a sequence, or times do not increase.
          TypeError: a column does not hold numbers. Messages name the column and the row.
        """
        columns = frames.columns(frame)
        parts = frames.sequences_of(
            columns,
            id=id,
            time=time,
            features=features,
            target=target,
            every=every,
            static=static,
            weight=weight,
            group=group,
        )
        return cls(**parts, missing=missing)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        width = f"{self.width} features" if self.x.ndim == 3 else "symbols"
        return f"Sequences({len(self)} rows, {self.steps} time steps, {width})"

    @property
    def steps(self) -> int:
        """T, the time steps of the longest row, padding included."""
        return self.x.shape[1]

    @property
    def width(self) -> int:
        """D, the features of a time step; 1 for symbols."""
        return self.x.shape[2] if self.x.ndim == 3 else 1

    @property
    def digest(self) -> str:
        """The hash of the contents."""
        names = ("x", "lengths", "mask", "y", "static", "weight", "group")
        return digest({name: getattr(self, name) for name in names} | {"missing": self.missing})

    def valid(self, rows: Any = slice(None)) -> np.ndarray:
        """Returns [n, T] bool, True at the time steps of these rows that count."""
        inside = np.arange(self.steps) < self.lengths[rows][:, None]
        return inside if self.mask is None else inside & self.mask[rows]

    def split(
        self,
        validation: float = 0.1,
        test: "float | Sequences" = 0.2,
        *,
        seed: int = 0,
        stratify: bool = False,
    ) -> splits.Split:
        """Returns the rows divided into training, validation and test.

        Rows of one `group` stay together.

        Args:
          validation: the share of the rows that validates; 0 for none.
          test: the share that tests, 0 for none; or other sequences that test.
          seed: which rows, at least 0.
          stratify: takes the same share of every label.

        Raises:
          ValueError: a share is out of range, or too few rows or groups are left to train.
        """
        if isinstance(test, Sequences):
            own = self.split(validation, 0.0, seed=seed, stratify=stratify)
            return splits.append(own, test)
        divided = splits.divide(self, validation, test, seed=seed, stratify=stratify)
        return splits.Split.of(self, divided)


def _inputs(x: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns x [N, T, D] float32 or integers [N, T]; for a list also the lengths of its rows."""
    table = isinstance(x, Mapping) or hasattr(x, "columns")
    if not hasattr(x, "__len__") or isinstance(x, str | bytes) or table:
        right = "an array [N, T, D] or a list of sequences [T_i, D]"
        hint = ": of a table take Sequences.from_frame(table, id=...)" if table else ""
        raise TypeError(f"x must be {right}, got {type(x).__name__}{hint}")
    if len(x) == 0:
        raise ValueError("x must hold at least one sequence, got none")
    if not convert.is_ragged(x):
        return _typed(convert.numbers("x", x)), None
    rows = [convert.numbers(f"x[{n}]", row) for n, row in enumerate(x)]
    _check_rows(rows)
    symbols = rows[0].ndim == 1 and all(row.dtype.kind in "iu" for row in rows)
    lengths = np.array([len(row) for row in rows], np.int32)
    if not lengths.all():
        empty = int(np.argmin(lengths))
        raise ValueError(f"x[{empty}] must have at least one time step, got none")
    array = convert.padded(rows, int(lengths.max()), np.int64 if symbols else np.float32)
    return _typed(array), lengths


def _check_rows(rows: list[np.ndarray]) -> None:
    """Raises ValueError unless all rows are [T_i, D] with one D, or all are [T_i]."""
    first = rows[0].shape
    for n, row in enumerate(rows):
        if row.ndim not in (1, 2):
            raise ValueError(f"x[{n}] must be [T_i, D] or [T_i], got shape {list(row.shape)}")
        if row.shape[1:] != first[1:]:
            hint = ""
            if row.ndim == len(first) == 2 and row.shape[0] == first[0]:
                hint = "; time comes first: transpose each sequence"
            wanted = "the shape [T_i, D] with the same D as" if len(first) == 2 else "the rank of"
            shapes = f"{list(row.shape)} after {list(first)}"
            raise ValueError(f"x[{n}] must have {wanted} x[0], got {shapes}{hint}")


def _typed(array: np.ndarray) -> np.ndarray:
    """Returns numbers as [N, T, D] float32; symbols [N, T] as they are."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"x must be [N, T, D] or [N, T], none 0, got shape {list(array.shape)}")
    if array.ndim == 2 and array.dtype.kind in "iu":
        return array
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32, copy=False)
    return numbers if array.ndim == 3 else numbers[..., None]


def _symbols(x: np.ndarray, lengths: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Returns symbols as int32 after a check of those that count."""
    bad = (np.arange(x.shape[1]) < lengths[:, None]) & ((x < 0) | (x >= 2**31 - 1))
    bad = bad if mask is None else bad & mask
    if bad.any():
        row, step = np.argwhere(bad)[0]
        raise ValueError(f"x[{row}, {step}] must be a symbol of at least 0, got {x[row, step]}")
    return x.astype(np.int32, copy=False)


def _lengths(lengths: Any, rows: int, longest: int) -> np.ndarray:
    if lengths is None:
        return np.full(rows, longest, np.int32)
    given = convert.one_of_each_row("lengths", lengths, rows)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise ValueError(f"lengths must be [N] integers, got {given.dtype} {list(given.shape)}")
    (bad,) = np.nonzero((given < 1) | (given > longest))
    if len(bad):
        right = f"between 1 and the {longest} time steps of x"
        raise ValueError(f"lengths[{bad[0]}] must be {right}, got {given[bad[0]]}")
    return given.astype(np.int32)


def _check_numbers(
    x: np.ndarray,
    lengths: np.ndarray,
    mask: np.ndarray | None,
    missing: Missing,
    names: tuple[str, ...],
) -> np.ndarray | None:
    """Checks the numbers that count; returns the mask without the steps that are missing."""
    names = frames.numbered(names, x.shape[2])
    if len(names) != x.shape[2]:
        raise ValueError(f"names must name the {x.shape[2]} features of x, got {list(names)}")
    for part in convert.chunks(x):
        valid = np.arange(x.shape[1]) < lengths[part, None]
        valid = valid if mask is None else valid & mask[part]
        _check_finite(x[part], valid, missing, names, part.start)
        if missing == "mask":
            gone = valid & np.isnan(x[part]).all(-1)
            if gone.any():
                mask = np.ones(x.shape[:2], bool) if mask is None else mask
                mask[part] &= ~gone
    return mask


def _check_finite(
    x: np.ndarray, valid: np.ndarray, missing: Missing, names: tuple[str, ...], first: int
) -> None:
    """Raises ValueError at a number that is infinite, or missing where none may be."""
    bad = np.isinf(x) if missing != "refuse" else ~np.isfinite(x)
    bad &= valid[..., None]
    if bad.any():
        n, t, d = np.argwhere(bad)[0]
        place = f"row {first + n}, time step {t}, feature {names[d]}"
        right = "finite, or NaN where it is missing" if missing != "refuse" else "finite"
        raise ValueError(f"x at {place} must be {right}, got {x[n, t, d]}")


def _check_steps(lengths: np.ndarray, mask: np.ndarray | None) -> None:
    """Raises ValueError where no time step of a row counts."""
    if mask is None:
        return
    inside = np.arange(mask.shape[1]) < lengths[:, None]
    (empty,) = np.nonzero(~(inside & mask).any(1))
    if len(empty):
        raise ValueError(
            f"row {empty[0]} of x must have a number at one time step, got none that counts"
        )


def _targets(y: Any, lengths: np.ndarray, longest: int) -> np.ndarray:
    """Returns y [N, ...], a list of rows of different lengths padded to [N, T, ...]."""
    rows = len(lengths)
    if not convert.is_ragged(y) or len({np.shape(row)[:1] for row in y}) == 1:
        return convert.one_of_each_row("y", y, rows)
    each = [convert.labels(f"y[{n}]", row) for n, row in enumerate(y)]
    if len(each) != rows:
        raise ValueError(f"y must have an entry for each of {rows} rows, got {len(each)}")
    for n, row in enumerate(each):
        if len(row) != lengths[n]:
            raise ValueError(
                f"y[{n}] must have the {lengths[n]} time steps of x[{n}], got {len(row)}"
            )
    kinds = {row.dtype.kind == "U" for row in each}
    if len(kinds) > 1 or len({row.shape[1:] for row in each}) > 1:
        raise ValueError("y must have targets of one kind and shape in all rows, got several")
    return convert.padded(each, longest, np.result_type(*each))


def _static(static: Any, rows: int) -> np.ndarray:
    array = convert.one_of_each_row("static", static, rows)
    if array.dtype.kind not in convert.NUMBERS or array.ndim > 2:
        raise ValueError(f"static must be [N, S] numbers, got {array.dtype} {list(array.shape)}")
    array = array.astype(np.float32).reshape(rows, -1)
    if np.isinf(array).any():
        n, s = np.argwhere(np.isinf(array))[0]
        raise ValueError(f"static[{n}, {s}] must be finite, or NaN where it is missing, got inf")
    return array


def _group(group: Any, rows: int) -> np.ndarray:
    array = convert.one_of_each_row("group", group, rows)
    if array.ndim != 1:
        raise ValueError(f"group must be [N] labels, got shape {list(array.shape)}")
    gone = array == "" if array.dtype.kind == "U" else array != array
    if gone.any():
        raise ValueError(f"group[{int(np.argmax(gone))}] must be a label, got none")
    return array


def _weight(weight: Any, rows: int) -> np.ndarray:
    array = convert.one_of_each_row("weight", weight, rows)
    if array.dtype.kind not in convert.NUMBERS or array.ndim != 1:
        raise ValueError(f"weight must be [N] numbers, got {array.dtype} {list(array.shape)}")
    (bad,) = np.nonzero(~np.isfinite(array.astype(float)) | (array < 0))
    if len(bad):
        raise ValueError(f"weight[{bad[0]}] must be finite and at least 0, got {array[bad[0]]}")
    if not array.any():
        raise ValueError("weight must be above 0 for one row at least, got zeros alone")
    return array.astype(np.float32)
