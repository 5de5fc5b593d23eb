"""Sequences of several sources as one, padded to the longest."""

from typing import Any

import numpy as np

from lstm_jax.data import frames
from lstm_jax.data.convert import to_length
from lstm_jax.data.sequences import Sequences


def join(parts: list[Sequences]) -> Sequences:
    """Returns the rows of several sequences as one, padded to the longest.

    Raises:
      ValueError: the parts have different features, or one has what another lacks.
    """
    first, longest = parts[0], max(part.steps for part in parts)
    for part in parts[1:]:
        _check_alike(first, part)
    per_step = {id(part): part.y is not None and _every(part) for part in parts}

    def joined(name: str, time: bool) -> Any:
        arrays = [getattr(part, name) for part in parts]
        if any(array is None for array in arrays):
            return None
        return np.concatenate([to_length(a, longest) if time else a for a in arrays])

    mask = np.concatenate([to_length(part.valid(), longest) for part in parts])
    return Sequences(
        joined("x", True),
        joined("y", all(per_step.values())),
        lengths=joined("lengths", False),
        mask=None if all(part.mask is None for part in parts) else mask,
        static=joined("static", False),
        weight=joined("weight", False),
        missing=first.missing,
        names=first.names,
        static_names=first.static_names,
    )


def _every(part: Sequences) -> bool:
    assert part.y is not None
    return part.y.ndim > 1 and part.y.shape[1] == part.steps


def _check_alike(first: Sequences, other: Sequences) -> None:
    """Raises ValueError unless rows of both can stand in one array."""
    if first.x.shape[2:] != other.x.shape[2:] or first.x.dtype != other.x.dtype:
        raise ValueError(f"all parts of a split must have the same features, got {first}, {other}")
    check_names(other, first.names, first.static_names)
    if first.missing != other.missing:
        parts = f"{first.missing!r} and {other.missing!r}"
        raise ValueError(f"all parts of a split must have the same missing, got {parts}")
    for name in ("y", "static", "weight"):
        mine, others = getattr(first, name), getattr(other, name)
        if (mine is None) != (others is None):
            raise ValueError(f"{name} must be given for all parts of a split or for none")


def check_names(data: Sequences, names: tuple[str, ...], static_names: tuple[str, ...]) -> None:
    """Raises ValueError unless the features of rows are the named ones, where both have names."""
    frames.check_names("features", names, data.names)
    frames.check_names("static", static_names, data.static_names)


def check_sequences(parts: dict[str, Any]) -> None:
    """Raises TypeError unless each part is `Sequences`, or, but for "train", None."""
    for name, part in parts.items():
        if not isinstance(part, Sequences) and (part is not None or name == "train"):
            raise TypeError(f"{name} must be Sequences, got {type(part).__name__}")
