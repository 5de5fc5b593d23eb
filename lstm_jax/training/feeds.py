"""The data of the compiled loop: arrays on the devices, or batches that a thread reads ahead."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np

from lstm_jax.data.digest import digest
from lstm_jax.training.parallel import Layout
from lstm_jax.training.step import Settings, steps_per_epoch

BLOCK = 32  # updates whose batches lie on the devices together


class Source(Protocol):
    """Rows read one at a time, such as files: pairs (x [T_i, D] or [T_i], y), as in grain."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Whole:
    """All data on the devices."""

    def __init__(self, layout: Layout, arrays: Any):
        self.first = layout.share(arrays)

    def at(self, step: int) -> tuple[Any, int]:
        """Returns the arrays for an update, and the first update that needs other arrays."""
        return self.first, np.iinfo(np.int32).max

    def close(self) -> None:
        """Does nothing."""


class Ahead:
    """Batches of a source, read in another thread while the devices compute.

    All trials get the same batches, each row once in an epoch. The order depends on the epoch
    alone, so training can continue from any update.
    """

    def __init__(self, layout: Layout, task: Any, source: Source, settings: Settings):
        self._layout, self._task, self._source = layout, task, source
        self._size, self._reader = settings.batch_size, ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Any]] | None = None
        self._order: tuple[int, np.ndarray] | None = None  # of the rows in one epoch
        self.first = layout.share(self._read(0))
        self._now = 0, self.first

    def at(self, step: int) -> tuple[Any, int]:
        """Returns the arrays for an update, and the first update that needs other arrays."""
        arrays, after = self.block(step), step // BLOCK + 1
        if self._next is None or self._next[0] != after:
            self._next = after, self._reader.submit(self._read, after)
        return arrays, after * BLOCK

    def block(self, step: int) -> Any:
        """Returns the arrays for an update, without reading ahead."""
        block = step // BLOCK
        if block != self._now[0]:
            ahead = self._next is not None and self._next[0] == block
            read = self._next[1].result() if ahead else self._read(block)  # pyright: ignore
            self._now = block, self._layout.share(read)
        return self._now[1]

    def close(self) -> None:
        """Ends the thread."""
        self._reader.shutdown(cancel_futures=True)

    def _read(self, block: int) -> dict[str, Any]:
        """Returns the rows of all batches of a block as the task's arrays, with weights."""
        first = block * BLOCK
        items, filled = [], []
        for rows in map(self._rows, range(first, first + BLOCK)):
            read = [self._item(row) for row in rows]
            empty = self._size - len(read)
            items += read + read[:1] * empty
            filled += [1.0] * len(read) + [0.0] * empty
        arrays = self._task.encode_rows(items)
        return arrays | {"first": np.int32(first), "filled": np.array(filled, np.float32)}

    def _rows(self, step: int) -> list[int]:
        """Returns the rows of one update; the last update of an epoch may have fewer."""
        epoch, part = divmod(step, steps_per_epoch(len(self._source), self._size))
        known = self._order
        if known is None or known[0] != epoch:
            order = np.random.default_rng([epoch]).permutation(len(self._source))
            known = self._order = epoch, order
        return known[1][part * self._size : (part + 1) * self._size].tolist()

    def _item(self, row: int) -> tuple[Any, Any]:
        item = self._source[row]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ValueError(f"source must give pairs (x, y), got {item!r:.80} for row {row}")
        return item[0], item[1]


def check_source(task: Any, source: Any) -> None:
    """Raises TypeError unless the source has rows and the task encodes rows one at a time."""
    if not hasattr(task, "encode_rows"):
        raise TypeError(f"source needs a task over sequences, such as Classification, got {task}")
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise TypeError(f"source must have __len__ and __getitem__, got {source!r:.80}")
    if len(source) == 0:
        raise ValueError("source must have rows, got none")


def digest_of(source: Source) -> str:
    """Returns a checksum of the number of rows, the first and the last."""
    ends = [[np.asarray(part) for part in source[row]] for row in (0, len(source) - 1)]
    return digest([np.array(len(source)), ends])


def shapes(arrays: Any) -> Any:
    """Returns the shapes and dtypes of arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
