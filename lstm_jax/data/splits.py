"""Splits: which rows train, validate and test."""

from typing import TYPE_CHECKING, Any

import numpy as np

from lstm_jax.checks import check_size
from lstm_jax.data.digest import digest

if TYPE_CHECKING:
    from lstm_jax.data.sequences import Sequences

SPLITS = ("train", "validation", "test")


class Split:
    """Rows that train, validate and test, over one copy of the data.

    Attributes:
      data: all rows.
      rows: {"train": [n] int32 row numbers, "validation": ..., "test": ...}; a part may be empty.
    """

    data: "Sequences"
    rows: dict[str, np.ndarray]

    def __init__(
        self,
        train: "Sequences",
        validation: "Sequences | None" = None,
        test: "Sequences | None" = None,
    ):
        """Joins sequences that are divided already.

        Raises:
          ValueError: the parts have different features; TypeError: one is no `Sequences`.
        """
        from lstm_jax.data.joining import check_sequences, join

        given = [train, validation, test]
        check_sequences(dict(zip(SPLITS, given, strict=True)))
        parts = [part for part in given if part is not None]
        ends = np.cumsum([0 if part is None else len(part) for part in given])
        self.data = train if len(parts) == 1 else join(parts)
        places = np.split(np.arange(ends[-1], dtype=np.int32), ends[:-1])
        self.rows = dict(zip(SPLITS, places, strict=True))

    @classmethod
    def of(cls, data: "Sequences", rows: dict[str, np.ndarray]) -> "Split":
        """Returns the split of data into these rows."""
        split = cls.__new__(cls)
        split.data, split.rows = data, rows
        return split

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(rows)}" for name, rows in self.rows.items())
        return f"Split({self.data}, {sizes})"

    @property
    def digest(self) -> str:
        """The hash of the data and of their division."""
        return digest([np.array(self.data.digest), self.rows])


def append(split: Split, test: "Sequences") -> Split:
    """Returns a split without test rows with these as its test rows."""
    from lstm_jax.data.joining import join

    first = len(split.data)
    rows = np.arange(first, first + len(test), dtype=np.int32)
    return Split.of(join([split.data, test]), split.rows | {"test": rows})


def divide(
    data: "Sequences", validation: float, test: float, *, seed: int, stratify: bool
) -> dict[str, np.ndarray]:
    """Returns the row numbers of each part, in increasing order.

    Raises:
      ValueError: as `Sequences.split`.
    """
    check_shares(validation, test)
    check_size("seed", seed, 0)
    rng = np.random.default_rng(seed)
    if not stratify and data.group is None:
        parts = _by_row(rng, len(data), validation, test)
    elif data.group is None:
        parts = stratified(rng, _labels(data), validation, test)
        _check_filled(parts, validation, test)
    elif stratify:
        raise ValueError("stratify must be False where rows have a group: groups stay whole")
    else:
        parts = _by_group(rng, data.group, validation, test)
    return {split: np.sort(parts[split]).astype(np.int32) for split in SPLITS}


def check_shares(validation: float, test: float) -> None:
    """Raises ValueError unless both are shares that leave something to train."""
    for name, share in (("validation", validation), ("test", test)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            right = "a share of the rows in [0, 1)"
            right += " or Sequences" if name == "test" else ""
            raise ValueError(f"{name} must be {right}, got {share!r:.60}")
    if validation + test >= 1:
        raise ValueError(
            f"validation and test must leave rows to train, got {validation} + {test} of 1"
        )


def _counts(kind: str, total: int, validation: float, test: float) -> tuple[int, int]:
    """Returns how many of `total` validate and test: one at least where a share is above 0."""
    counts = [max(1, round(total * share)) if share else 0 for share in (validation, test)]
    if sum(counts) >= total:
        parts = 1 + sum(count > 0 for count in counts)
        raise ValueError(f"{kind} must be at least {parts} for {parts} parts, got {total}")
    return counts[0], counts[1]


def _by_row(
    rng: np.random.Generator, rows: int, validation: float, test: float
) -> dict[str, np.ndarray]:
    counts = _counts("the number of rows", rows, validation, test)
    return _cut(rng.permutation(rows), *counts)


def _by_group(
    rng: np.random.Generator, group: np.ndarray, validation: float, test: float
) -> dict[str, np.ndarray]:
    """Returns rows of whole groups; shares are of the groups."""
    names, of_row = np.unique(group, return_inverse=True)
    counts = _counts("the number of groups", len(names), validation, test)
    members = _cut(rng.permutation(len(names)), *counts)
    return {split: np.flatnonzero(np.isin(of_row, of)) for split, of in members.items()}


def _labels(data: "Sequences") -> np.ndarray:
    if data.y is None or data.y.ndim != 1:
        got = "none" if data.y is None else f"shape {list(data.y.shape)}"
        raise ValueError(f"stratify needs y with one label a row, got {got}")
    if data.y.dtype.kind == "f" and np.any(data.y[np.isfinite(data.y)] % 1):
        raise ValueError("stratify needs labels, got y with fractions: leave stratify out")
    return data.y


def stratified(
    rng: np.random.Generator, labels: np.ndarray, validation: float, test: float
) -> dict[str, np.ndarray]:
    """Returns the rows of each part, in order, with equal shares of every label."""
    members: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        parts = _cut(rows, round(len(rows) * validation), round(len(rows) * test))
        for split, part in parts.items():
            members[split].append(part)
    return {split: np.sort(np.concatenate(parts)) for split, parts in members.items()}


def _cut(order: np.ndarray, validation: int, test: int) -> dict[str, np.ndarray]:
    parts = np.split(order, [validation, validation + test])
    return dict(zip(("validation", "test", "train"), parts, strict=True))


def _check_filled(parts: dict[str, np.ndarray], validation: float, test: float) -> None:
    for name, share in (("validation", validation), ("test", test)):
        if share and not len(parts[name]):
            right = f"{name}={share} must be large enough for one row of a label"
            raise ValueError(f"{right}; every label has too few rows for stratify=True")


def check_split(split: Any) -> None:
    """Raises TypeError unless this is a `Split`."""
    if not isinstance(split, Split):
        right = "a Split, such as Sequences(x, y).split(validation=0.1, test=0.2)"
        raise TypeError(f"split must be {right}, got {type(split).__name__}")
