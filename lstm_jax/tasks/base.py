"""The interface of problems, and their common losses and metrics."""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.checks import check_choice as check_choice  # for tasks
from lstm_jax.checks import check_size as check_size
from lstm_jax.types import Array, Batch, wide

SPLITS = ("train", "validation", "test")


class Stats(NamedTuple):
    """Statistics of recent training batches.

    Attributes:
      loss: running mean, a scalar.
      metric: running mean, a scalar.
      memory: the task's memory of its training answers, see `Task.memory`.
    """

    loss: Array
    metric: Array
    memory: Any = ()


class Task(abc.ABC):
    """A problem: a sampler with its sizes.

    A task is a hashable frozen dataclass without arrays in its fields. Its methods are pure and
    work under `jit` and `vmap`. A new task sets the attributes below and defines `sample`, `loss`
    and `correct`.

    Attributes:
      name: its name in tables.
      readout: "last" for outputs [B, V] at each row's last valid time step; "every" for [T, B, V].
      metric_name: the name of the metric.
      higher_is_better: whether a larger metric is better.
      input_kind: "numbers" for inputs [T, B, D]; "symbols" for integers [T, B].
      input_size: D, the width of an input, or the number of symbols.
      output_size: V, the width of a model's output.
      length: T, the time steps of a batch: the longest sequence, padding included.
      chance: the expected metric of the best answer that ignores the input.
    """

    name: ClassVar[str]
    readout: ClassVar[Literal["last", "every"]]
    metric_name: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    input_kind: Literal["numbers", "symbols"] = "numbers"
    input_size: int
    output_size: int
    length: int
    chance: float

    @abc.abstractmethod
    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws a batch of `batch_size` sequences of one split, x [T, B, D] float32.

        Raises:
          ValueError: split is not one of `SPLITS`.
        """

    @abc.abstractmethod
    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean loss of a batch, a scalar."""

    @abc.abstractmethod
    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where the whole answer to a sequence is right, else 0, [B] float32."""

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of sequences with a right answer, a scalar."""
        return jnp.mean(self.correct(outputs, batch))

    def memory(self) -> Any:
        """Returns the memory of a trial before its first batch, a pytree of arrays; () for none.

        With a memory, `solved` can depend on single answers instead of means.
        """
        return ()

    def observe(self, memory: Any, outputs: Array, batch: Batch) -> Any:
        """Returns the memory after a training batch, from outputs that precede its update."""
        del outputs, batch
        return memory

    def solved(self, stats: Stats) -> Array:
        """Returns whether a trial may stop, a bool scalar; False by default."""
        return jnp.zeros_like(stats.metric, bool)

    def arrays(self) -> Any:
        """Returns the data of the problem, a tree of NumPy arrays; () by default.

        They are arguments of the compiled program, so two datasets of equal shapes share one
        program. The methods of a task with arrays take them as `arrays=`.
        """
        return ()

    @property
    def static(self) -> "Task":
        """The task without its data, hashable and equal by value: the key of a program."""
        return self

    @property
    def serving(self) -> "Task":
        """The task by which a trained model predicts new rows and is saved; by default itself."""
        return self

    @property
    def digest(self) -> str:
        """A checksum of the data, "" without data; a run resumes only with the same."""
        return ""

    def split_size(self, split: str) -> int | None:
        """Returns the number of sequences in a split; None for a split that is sampled."""
        check_choice("split", split, SPLITS)
        return None

    def examples(self, split: str) -> Batch:
        """Returns every sequence of a split once, if `split_size` is not None.

        Sequences lie along axis 1 of x. They lie along axis 1 of y for readout "every", else along
        axis 0.
        """
        raise ValueError(f"{self.name} samples its sequences: a split has no end")

    def evaluated(self, split: str, arrays: Any) -> Any:
        """Returns the data that the evaluation of a split reads: `arrays`, or its `examples`."""
        return arrays if self.split_size(split) is None else self.examples(split)

    def sequences(self, data: Any, split: str, start: Array | int, size: int) -> Batch:
        """Returns `size` sequences of a finite split, from number `start` on."""

        def cut(tree, axis):
            return jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size, axis), tree
            )

        x, y, mask, reset = data
        targets = cut(y, 1 if self.readout == "every" else 0)
        return Batch(cut(x, 1), targets, cut(mask, 1), cut(reset, 1))

    def parts(self, data: Any) -> int:
        """Returns in how many parts of time a model reads the sequences of `evaluated` data.

        The model carries its state from part to part, so no sequence is held whole. By default 0:
        each sequence is read whole, see `sequences`.
        """
        del data
        return 0

    def part(self, data: Any, index: Array | int) -> Batch:
        """Returns part number `index` of all sequences, x [T, B, D], where `parts` is not 0."""
        raise ValueError(f"{self.name} has no parts of time, got part {index} of {data!r:.40}")

    def weight(self, batch: Batch) -> Array:
        """Returns the weight of a batch in means over batches; by default its sequences."""
        return jnp.float32(jax.tree.leaves(batch.x)[0].shape[1])


class Target(NamedTuple):
    """The targets of rows, and the weight of each target.

    Attributes:
      value: the targets, [B, ...], or [T, B, ...] for readout "every".
      weight: [B] or [T, B] float32; 0 for padding and missing targets.
    """

    value: Any
    weight: Array


class Rows(Task):
    """A problem over rows of data, such as labelled sequences or windows of time series.

    `fit` visits each training row once per epoch, or draws rows with replacement. A new task
    defines `arrays`, `static` and `batch` instead of `sample`. Its loss and metric are means over
    rows by their weights, see `weighted_mean`.

    `arrays()` is a dictionary; its entry "splits" has the row numbers of each split, int32.
    """

    @abc.abstractmethod
    def arrays(self) -> dict[str, Any]:
        """Returns the data of all rows and the entry "splits": split -> [N] int32."""

    @abc.abstractmethod
    def batch(self, arrays: dict[str, Any], index: Array, weight: Array) -> Batch:
        """Returns rows as x [T, B, D] and y, a `Target`.

        Args:
          arrays: the result of `arrays()`, or such arrays of other rows.
          index: [B] int32, row numbers.
          weight: [B] float32, 0 for padding.
        """

    def sample(
        self, key: Array, batch_size: int, split: str = "train", arrays: Any = None
    ) -> Batch:
        """Draws rows of one split with replacement."""
        key = split_key(key, split)
        arrays = self.arrays() if arrays is None else arrays
        members = jnp.asarray(arrays["splits"][split])
        index = jax.random.randint(key, (batch_size,), 0, len(members), jnp.int32)
        return self.batch(arrays, members[index], jnp.ones(batch_size))

    def examples(self, split: str) -> Batch:
        """Returns every row of a split once."""
        check_choice("split", split, SPLITS)
        arrays = self.arrays()
        members = jnp.asarray(arrays["splits"][split])
        return self.batch(arrays, members, jnp.ones(len(members)))

    def split_size(self, split: str) -> int:
        """Returns the number of rows in a split."""
        check_choice("split", split, SPLITS)
        return len(self.arrays()["splits"][split])

    def evaluated(self, split: str, arrays: Any) -> Any:
        """Returns the arrays of all rows."""
        return arrays

    def sequences(self, data: Any, split: str, start: Array | int, size: int) -> Batch:
        """Returns `size` rows of a split from number `start` on."""
        members = jax.lax.dynamic_slice_in_dim(data["splits"][split], start, size)
        return self.batch(data, members, jnp.ones(size))

    def weight(self, batch: Batch) -> Array:
        """Returns the sum of the weights of the targets."""
        return batch.y.weight.sum()


class Stream(Task):
    """A problem whose sequences are longer than a batch, read in windows of time.

    Each row of a window continues the same row of the window before, with a reset at each start of
    a sequence. `fit` passes the model's state from window to window, without gradients. A new
    stream defines `begin` and `next` instead of `sample`.

    A cursor is the position of a stream between two windows: any tree of arrays, saved in every
    checkpoint. For a key it holds `jax.random.key_data`.

    Attributes:
      length: T, the time steps of a window.
    """

    @abc.abstractmethod
    def begin(self, key: Array, batch_size: int, split: str = "train") -> Any:
        """Returns the cursor before the first window of `batch_size` rows of one split.

        Raises:
          ValueError: split is not one of `SPLITS`.
        """

    @abc.abstractmethod
    def next(self, cursor: Any) -> tuple[Any, Batch]:
        """Returns the cursor after a window, and the window, x [T, B, D] float32."""

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws the first window of a stream."""
        return self.next(self.begin(key, batch_size, split))[1]


def never_solved(task: Task) -> Task:
    """Returns the same problem without early stopping: every trial trains to its last step."""
    if type(task).solved is Task.solved:
        return task
    fields = [field.name for field in dataclasses.fields(task)]  # pyright: ignore
    return _never_solved(type(task))(**{name: getattr(task, name) for name in fields})


@functools.cache
def _never_solved(kind: type[Task]) -> Any:
    return type(f"NeverSolved{kind.__name__}", (kind,), {"solved": Task.solved})


def split_key(key: Array, split: str) -> Array:
    """Returns the key of one split: equal keys give different sequences in each split."""
    check_choice("split", split, SPLITS)
    return jax.random.fold_in(key, SPLITS.index(split))


def cross_entropies(logits: Array, labels: Array) -> Array:
    """Returns -log softmax(logits)[label], in nats, [...]; logits [..., V], labels [...].

    A label outside [0, V) has a cross entropy of nan. The result is float32 at least.

    Raises:
      ValueError: the shapes do not fit; TypeError: the labels are not integers.
    """
    check_alike("labels", labels, logits[..., 0])
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers in [0, {logits.shape[-1]}), got {labels.dtype}")
    log_p = jax.nn.log_softmax(logits.astype(wide(logits.dtype)))
    each = -jnp.take_along_axis(log_p, labels[..., None], axis=-1, mode="fill")[..., 0]
    return jnp.where(labels < 0, jnp.nan, each)  # indices below 0 would count from the end


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Returns the mean of -log softmax(logits)[label], in nats; logits [..., V], labels [...]."""
    return jnp.mean(cross_entropies(logits, labels))


def squared_error(predictions: Array, targets: Array) -> Array:
    """Returns the mean of (prediction - target)^2; both [B]."""
    check_alike("targets", targets, predictions)
    dtype = wide(predictions.dtype)
    return jnp.mean((predictions.astype(dtype) - targets.astype(dtype)) ** 2)


def labelled(logits: Array, labels: Array) -> Array:
    """Returns 1.0 where the label's logit is the largest, else 0.0; logits [..., V]."""
    check_alike("labels", labels, logits[..., 0])
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def weighted_mean(values: Array, weight: Array) -> Array:
    """Returns sum(weight value) / sum(weight), a scalar, or 0 without a positive weight.

    Both have one shape. A value of weight 0 has no effect, even if it is nan.
    """
    check_alike("weight", weight, values)
    counted = jnp.where(weight > 0, values, 0)
    total = jnp.sum(weight)
    return jnp.sum(counted * weight) / jnp.where(total > 0, total, 1)


def rows(values: Array, index: Array) -> Array:
    """Returns values[index[t, b], b], [T, B], with the index clipped to [0, L).

    values [L, B]; index [T, B] or [T, 1].
    """
    index = jnp.clip(index, 0, len(values) - 1)
    index = jnp.broadcast_to(index, jnp.broadcast_shapes(index.shape, values[:1].shape))
    return jnp.take_along_axis(values, index, axis=0)


def within(tolerance: float, predictions: Array, targets: Array) -> Array:
    """Returns 1.0 where |prediction - target| < tolerance, else 0.0; both [B]."""
    check_alike("targets", targets, predictions)
    dtype = wide(predictions.dtype)
    error = jnp.abs(predictions.astype(dtype) - targets.astype(dtype))
    return (error < tolerance).astype(jnp.float32)


def check_alike(name: str, given: Array, like: Array) -> None:
    """Raises ValueError unless the shapes are equal: broadcasting would give another loss."""
    if given.shape != like.shape:
        raise ValueError(f"{name} must have shape {list(like.shape)}, got {list(given.shape)}")
