"""What every problem offers to learning, and the few losses and measures problems share."""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_jax.checks import check_choice as check_choice  # for tasks
from lstm_jax.checks import check_size as check_size
from lstm_jax.types import Array, Batch, wide

SPLITS = ("train", "validation", "test")


class Stats(NamedTuple):
    """What the training loop keeps of recent training batches.

    Attributes:
      loss: running mean, a scalar.
      metric: running mean, a scalar.
      memory: what the task remembers of its training answers, see `Task.memory`.
    """

    loss: Array
    metric: Array
    memory: Any = ()


class Task(abc.ABC):
    """A problem: one sampler plus its sizes.

    A task is a frozen dataclass, hashable, with no arrays in its fields; it knows no model. Its
    methods are pure and work under `jit` and `vmap`. A new task states the attributes below and
    writes `sample`, `loss` and `correct`.

    Attributes:
      name: what tables call it.
      readout: "last" when outputs are [B, V], read at each row's last valid step; "every" when they
        are [T, B, V].
      metric_name: what `metric` measures.
      higher_is_better: whether a larger metric is the better one.
      input_kind: "numbers" where inputs are [T, B, D]; "symbols" where they are integers [T, B].
      input_size: D, the width of an input, or the number of symbols.
      output_size: V, the width of a model's output.
      length: T, the steps of a batch: the longest sequence, padding included.
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
          ValueError: split is none of `SPLITS`.
        """

    @abc.abstractmethod
    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean loss of a batch, a scalar."""

    @abc.abstractmethod
    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns [B] float32: 1 where the whole answer to a sequence is right, else 0."""

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of sequences answered right, a scalar."""
        return jnp.mean(self.correct(outputs, batch))

    def memory(self) -> Any:
        """Returns the memory of a trial before its first batch, a pytree of arrays; () for none.

        A task with a memory decides by it, in `solved`, from single answers instead of means.
        """
        return ()

    def observe(self, memory: Any, outputs: Array, batch: Batch) -> Any:
        """Returns the memory after a training batch, from outputs that precede its update."""
        del outputs, batch
        return memory

    def solved(self, stats: Stats) -> Array:
        """Returns whether a trial may stop here, a bool scalar; never, unless a task says so."""
        return jnp.zeros_like(stats.metric, bool)

    def arrays(self) -> Any:
        """Returns the data of the problem, a tree of NumPy arrays; by default there are none.

        A compiled program takes them as arguments, so two datasets of equal shapes share one
        program. Methods of a task that has arrays take them as `arrays=`.
        """
        return ()

    @property
    def static(self) -> "Task":
        """The task without its data: hashable and equal by value, what a program is built from."""
        return self

    @property
    def serving(self) -> "Task":
        """The task by which a trained model predicts new rows and is saved; by default itself."""
        return self

    @property
    def digest(self) -> str:
        """A checksum of the data, "" where there are none; a run is resumed with the same only."""
        return ""

    def split_size(self, split: str) -> int | None:
        """Returns how many sequences a split holds; None where they are drawn without end."""
        check_choice("split", split, SPLITS)
        return None

    def examples(self, split: str) -> Batch:
        """Returns every sequence of a split once, where `split_size` is not None.

        They lie along axis 1 of x and, with an answer at every step, of y; else along axis 0 of y.
        """
        raise ValueError(f"{self.name} draws its sequences without end: no split can be whole")


class Target(NamedTuple):
    """What rows are to be answered with, and how much each answer counts.

    Attributes:
      value: the targets, [B, ...], or [T, B, ...] for readout "every".
      weight: [B] or [T, B] float32; 0 where there is no row, or no target.
    """

    value: Any
    weight: Array


class Rows(Task):
    """A problem over rows of data, such as labelled sequences or windows of time series.

    `fit` goes through the rows of the training split in epochs, each row once before any twice, or
    draws rows with replacement. A new one writes `arrays`, `static` and `batch` in place of
    `sample`. Its measures are means over rows by their weight, see `weighted_mean`.

    `arrays()` is a dictionary; its entry "splits" has the numbers of the rows of each split, int32.
    """

    @abc.abstractmethod
    def arrays(self) -> dict[str, Any]:
        """Returns the data of all rows and the entry "splits": split -> [N] int32."""

    @abc.abstractmethod
    def batch(self, arrays: dict[str, Any], index: Array, weight: Array) -> Batch:
        """Returns rows as x [T, B, D] and y, a `Target`.

        Args:
          arrays: as `arrays()` returns them, or arrays of the same kinds of other rows.
          index: [B] int32, row numbers.
          weight: [B] float32, 0 for a row that is there to fill the batch.
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
        """Returns how many rows a split holds."""
        check_choice("split", split, SPLITS)
        return len(self.arrays()["splits"][split])


class Stream(Task):
    """A problem whose sequences are too long for one batch: it comes in windows of time.

    Row by row, a window goes on where the one before it ended, and has a reset wherever a sequence
    begins. `fit` carries the model's state along, so that gradients end at the seams and states do
    not. A new stream writes `begin` and `next` in place of `sample`.

    A cursor is what the stream must remember between two windows: any tree of arrays (of a key, its
    `jax.random.key_data`), which is in every checkpoint.

    Attributes:
      length: T, the time steps of a window.
    """

    @abc.abstractmethod
    def begin(self, key: Array, batch_size: int, split: str = "train") -> Any:
        """Returns the cursor before the first window of `batch_size` rows of one split.

        Raises:
          ValueError: split is none of `SPLITS`.
        """

    @abc.abstractmethod
    def next(self, cursor: Any) -> tuple[Any, Batch]:
        """Returns the cursor after a window, and the window, x [T, B, D] float32."""

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws the first window of a stream."""
        return self.next(self.begin(key, batch_size, split))[1]


def never_solved(task: Task) -> Task:
    """Returns the same problem without early success: every trial trains to its last step."""
    if type(task).solved is Task.solved:
        return task
    fields = [field.name for field in dataclasses.fields(task)]  # pyright: ignore
    return _never_solved(type(task))(**{name: getattr(task, name) for name in fields})


@functools.cache
def _never_solved(kind: type[Task]) -> Any:
    return type(f"Endless{kind.__name__}", (kind,), {"solved": Task.solved})


def split_key(key: Array, split: str) -> Array:
    """Returns the key of one split, so that the same key draws other sequences in each."""
    check_choice("split", split, SPLITS)
    return jax.random.fold_in(key, SPLITS.index(split))


def cross_entropies(logits: Array, labels: Array) -> Array:
    """-log softmax(logits)[label], in nats, [...]; logits [..., V], integer labels [...].

    A label outside [0, V) has a cross entropy of nan. Computed in float32 at least, whatever the
    outputs' dtype; so are the others here.

    Raises:
      ValueError: the shapes do not fit; TypeError: the labels are no integers.
    """
    check_alike("labels", labels, logits[..., 0])
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers in [0, {logits.shape[-1]}), got {labels.dtype}")
    log_p = jax.nn.log_softmax(logits.astype(wide(logits.dtype)))
    each = -jnp.take_along_axis(log_p, labels[..., None], axis=-1, mode="fill")[..., 0]
    return jnp.where(labels < 0, jnp.nan, each)  # indices below 0 would count from the end


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean of -log softmax(logits)[label], in nats; logits [..., V], integer labels [...]."""
    return jnp.mean(cross_entropies(logits, labels))


def squared_error(predictions: Array, targets: Array) -> Array:
    """Mean of (prediction - target)^2; both [B]."""
    check_alike("targets", targets, predictions)
    dtype = wide(predictions.dtype)
    return jnp.mean((predictions.astype(dtype) - targets.astype(dtype)) ** 2)


def half_squared_error(predictions: Array, targets: Array) -> Array:
    """Mean over sequences of sum (prediction - target)^2 / 2, the error of 1997; both [..., B, V].

    Its gradient with respect to a prediction is the error itself, for which learning rates of that
    time are meant.
    """
    check_alike("targets", targets, predictions)
    dtype = wide(predictions.dtype)
    errors = predictions.astype(dtype) - targets.astype(dtype)
    return jnp.sum(errors**2) / (2 * predictions.shape[-2])


def logistic_errors(outputs: Array, targets: Array, cross_entropy: bool = False) -> Array:
    """(sigmoid(output) - target)^2 / 2 of each output, or its cross entropy; all [..., V].

    The gradient of the cross entropy, -target log y - (1 - target) log(1 - y) for y =
    sigmoid(output), with respect to an output is the error itself, y - target. That of the square
    has the slope of the logistic in it as well: it vanishes where an output is sure and wrong.
    """
    check_alike("targets", targets, outputs)
    outputs = outputs.astype(wide(outputs.dtype))
    targets = targets.astype(outputs.dtype)
    if cross_entropy:
        return optax.sigmoid_binary_cross_entropy(outputs, targets)
    return (jax.nn.sigmoid(outputs) - targets) ** 2 / 2


def labelled(logits: Array, labels: Array) -> Array:
    """1.0 where the largest logit is the label's, else 0.0; logits [..., V], labels [...]."""
    check_alike("labels", labels, logits[..., 0])
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def mean_where(where: Array, values: Array) -> Array:
    """The mean of the values where they count, a scalar; both of one shape."""
    return jnp.mean(values, where=where)


def weighted_mean(values: Array, weight: Array) -> Array:
    """sum(weight value) / sum(weight), a scalar, 0 where no weight is positive; of one shape.

    A value without weight changes nothing, not even where it is nan.
    """
    check_alike("weight", weight, values)
    counted = jnp.where(weight > 0, values, 0)
    total = jnp.sum(weight)
    return jnp.sum(counted * weight) / jnp.where(total > 0, total, 1)


def rows(values: Array, index: Array) -> Array:
    """values[index[t, b], b], [T, B], the nearest row where there is no such one.

    values [L, B]; index [T, B] or [T, 1].
    """
    index = jnp.clip(index, 0, len(values) - 1)
    index = jnp.broadcast_to(index, jnp.broadcast_shapes(index.shape, values[:1].shape))
    return jnp.take_along_axis(values, index, axis=0)


def within(tolerance: float, predictions: Array, targets: Array) -> Array:
    """1.0 where |prediction - target| < tolerance, else 0.0; both [B]."""
    check_alike("targets", targets, predictions)
    dtype = wide(predictions.dtype)
    error = jnp.abs(predictions.astype(dtype) - targets.astype(dtype))
    return (error < tolerance).astype(jnp.float32)


def check_alike(name: str, given: Array, like: Array) -> None:
    """Raises ValueError unless shapes are equal: broadcast, they would have another loss."""
    if given.shape != like.shape:
        raise ValueError(f"{name} must have shape {list(like.shape)}, got {list(given.shape)}")
