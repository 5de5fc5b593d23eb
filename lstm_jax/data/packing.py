"""Packing: several sequences in one row of a batch, separated by resets."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lstm_jax.types import Array


class Packed(NamedTuple):
    """N sequences in B rows of T time steps, as NumPy arrays.

    Attributes:
      x: [T, B, ...] the sequences, one after the other, and zeros in unused places.
      mask: [T, B] bool, True inside a sequence.
      reset: [T, B] bool, True where a sequence starts.
      row: [N] int32, the row of each sequence.
      start: [N] int32, its first time step.
      length: [N] int32, its number of time steps; may be 0.
    """

    x: Any
    mask: Any
    reset: Any
    row: np.ndarray
    start: np.ndarray
    length: np.ndarray


def pack(sequences: Sequence[Any], length: int) -> Packed:
    """Packs sequences into rows by first fit.

    Each sequence goes into the first row with enough free time steps. Its place depends on the
    lengths only, so inputs and targets are packed in the same way.

    Args:
      sequences: N arrays [T_n, ...] of one dtype.
      length: T, the number of time steps of a row.

    Raises:
      ValueError: `sequences` is empty, one is longer than a row, or shapes or dtypes differ.
    """
    if not sequences:
        raise ValueError("sequences must hold at least one, got none")
    arrays = [np.asarray(sequence) for sequence in sequences]
    for n, array in enumerate(arrays):
        if len(array) > length:
            raise ValueError(
                f"sequences[{n}] must have at most length={length} time steps, got {len(array)}"
            )
        if (array.shape[1:], array.dtype) != (arrays[0].shape[1:], arrays[0].dtype):
            raise ValueError(f"sequences[{n}] must be {arrays[0].dtype} {arrays[0].shape[1:]} at "
                             f"each time step, got {array.dtype} {array.shape[1:]}")  # fmt: skip
    lengths = np.array([len(array) for array in arrays], np.int32)
    row, start, B = _first_fit(lengths, length)
    x = np.zeros((length, B, *arrays[0].shape[1:]), arrays[0].dtype)
    mask, reset = np.zeros((2, length, B), bool)
    for array, b, t in zip(arrays, row, start, strict=True):
        x[t : t + len(array), b], mask[t : t + len(array), b] = array, True
        reset[t : t + min(1, len(array)), b] = True
    return Packed(x, mask, reset, row, start, lengths)


def unpack(packed: Packed, values: Array) -> tuple[Array, Array]:
    """Returns values and mask of each sequence in its own row.

    A layer's `last` then applies to each sequence: `stack.last(*unpack(packed, h))` is [N, H].

    Args:
      packed: the packed sequences.
      values: [T, B, ...] values at the time steps of the packed rows, such as outputs.

    Returns:
      The values [T, N, ...] of every sequence from time step 0, followed by zeros, and their mask
      [T, N].

    Raises:
      ValueError: values are not [T, B, ...] for the T and B of the packed rows.
    """
    T, B = np.shape(packed.mask)
    if np.shape(values)[:2] != (T, B):
        wanted = f"[T, B, ...] with T = {T} and B = {B}"
        raise ValueError(f"values must be {wanted}, got shape {np.shape(values)}")
    t = jnp.arange(values.shape[0], dtype=jnp.int32)[:, None]
    mask = t < packed.length[None]
    at = jnp.where(mask, t + packed.start[None], 0)
    unpacked = jnp.asarray(values)[at, jnp.broadcast_to(jnp.asarray(packed.row)[None], at.shape)]
    valid = mask.reshape(*mask.shape, *(1,) * (unpacked.ndim - 2))
    return jnp.where(valid, unpacked, jnp.zeros_like(unpacked)), mask


def _first_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the row and first time step of each sequence, and the number of rows."""
    ends, row, start = [0], [], []
    for length in map(int, lengths):
        b = next((b for b, end in enumerate(ends) if end + length <= capacity), len(ends))
        ends += [0] * (b == len(ends))
        row.append(b)
        start.append(ends[b])
        ends[b] += length
    return np.array(row, np.int32), np.array(start, np.int32), len(ends)
