"""Packed rows: several sequences in one row of a batch, told apart by resets."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lstm_jax.types import Array


class Packed(NamedTuple):
    """N sequences in B rows of T instants; NumPy arrays.

    Attributes:
      x: [T, B, ...] the sequences, one behind the other; zeros where a row has none.
      mask: [T, B] bool, True where a sequence is.
      reset: [T, B] bool, True where one begins.
      row: [N] int32, the row of each sequence.
      start: [N] int32, its first instant.
      length: [N] int32, its instants; may be 0.
    """

    x: Any
    mask: Any
    reset: Any
    row: np.ndarray
    start: np.ndarray
    length: np.ndarray


def pack(sequences: Sequence[Any], length: int) -> Packed:
    """Puts sequences into as few rows as first-fit finds: each into the first with room for it.

    Where they come to lie depends on their lengths alone, so inputs and targets are packed alike.

    Args:
      sequences: N arrays [T_n, ...] of one dtype.
      length: T, the instants of a row.

    Raises:
      ValueError: there are none, or one is longer than a row or unlike the others.
    """
    if not sequences:
        raise ValueError("sequences must hold at least one, got none")
    arrays = [np.asarray(sequence) for sequence in sequences]
    for n, array in enumerate(arrays):
        if len(array) > length:
            raise ValueError(f"sequences[{n}] has {len(array)} instants, more than length={length}")
        if (array.shape[1:], array.dtype) != (arrays[0].shape[1:], arrays[0].dtype):
            raise ValueError(f"sequences[{n}] must be {arrays[0].dtype} {arrays[0].shape[1:]} an "
                             f"instant, got {array.dtype} {array.shape[1:]}")  # fmt: skip
    lengths = np.array([len(array) for array in arrays], np.int32)
    row, start, rows = _first_fit(lengths, length)
    x = np.zeros((length, rows, *arrays[0].shape[1:]), arrays[0].dtype)
    mask, reset = np.zeros((2, length, rows), bool)
    for array, b, t in zip(arrays, row, start, strict=True):
        x[t : t + len(array), b], mask[t : t + len(array), b] = array, True
        reset[t : t + min(1, len(array)), b] = True
    return Packed(x, mask, reset, row, start, lengths)


def unpack(packed: Packed, values: Array) -> tuple[Array, Array]:
    """Gives every sequence a row of its own again.

    A layer's `last` then reads them one by one, in whatever direction it goes:
    `stack.last(*unpack(packed, h))` is [N, H].

    Args:
      packed: where the sequences lie.
      values: [T, B, ...] something for every instant of the packed rows, such as outputs.

    Returns:
      The values [T, N, ...] of every sequence from instant 0 on, zeros behind its end, and the mask
      [T, N] of where it is.

    Raises:
      ValueError: values are not [T, B, ...] for the T and B of the packed rows.
    """
    rows = np.shape(packed.mask)
    if np.shape(values)[:2] != rows:
        wanted = f"[T, B, ...] with T = {rows[0]} and B = {rows[1]}"
        raise ValueError(f"values must be {wanted}, got shape {np.shape(values)}")
    t = jnp.arange(values.shape[0], dtype=jnp.int32)[:, None]
    mask = t < packed.length[None]
    at = jnp.where(mask, t + packed.start[None], 0)
    found = jnp.asarray(values)[at, jnp.broadcast_to(jnp.asarray(packed.row)[None], at.shape)]
    wide = mask.reshape(*mask.shape, *(1,) * (found.ndim - 2))
    return jnp.where(wide, found, jnp.zeros_like(found)), mask


def _first_fit(lengths: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the row and first instant of each sequence, and the number of rows."""
    ends, row, start = [0], [], []
    for length in map(int, lengths):
        b = next((b for b, end in enumerate(ends) if end + length <= room), len(ends))
        ends += [0] * (b == len(ends))
        row.append(b)
        start.append(ends[b])
        ends[b] += length
    return np.array(row, np.int32), np.array(start, np.int32), len(ends)
