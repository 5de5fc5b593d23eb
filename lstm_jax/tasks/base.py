"""What every problem offers to learning, and the few losses and measures problems share."""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.types import Array, Batch, wide

SPLITS = ("train", "validation", "test")


class Stats(NamedTuple):
    """Running means over recent training batches, kept by the training loop: two scalars."""

    loss: Array
    metric: Array


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
      input_size: D, the width of an input.
      output_size: V, the width of a model's output.
      length: T, the steps of a batch: the longest sequence, padding included.
      chance: the expected metric of the best answer that ignores the input.
    """

    name: ClassVar[str]
    readout: ClassVar[Literal["last", "every"]]
    metric_name: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
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

    def solved(self, stats: Stats) -> Array:
        """Returns whether a trial may stop here, a bool scalar; never, unless a task says so."""
        return jnp.zeros_like(stats.metric, bool)

    def split_size(self, split: str) -> int | None:
        """Returns how many sequences a split holds; None where they are drawn without end."""
        check_choice("split", split, SPLITS)
        return None

    def examples(self, split: str) -> Batch:
        """Returns every sequence of a split once, where `split_size` is not None.

        They lie along axis 1 of x and, with an answer at every step, of y; else along axis 0 of y.
        """
        raise ValueError(f"{self.name} draws its sequences without end: no split can be whole")


class Stream(Task):
    """A problem whose sequences are too long for one batch: it comes in windows of time.

    Row by row, a window goes on where the one before it ended, and has a reset wherever a sequence
    begins. `fit` carries the model's state along, so that gradients end at the seams and states do
    not. A new stream writes `begin` and `next` in place of `sample`.

    A cursor is what the stream must remember between two windows: any tree of arrays (of a key, its
    `jax.random.key_data`), which is in every checkpoint.

    Attributes:
      length: T, the instants of a window.
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


def endless(task: Task) -> Task:
    """Returns the same problem, which no trial ever has solved: all are trained to their end."""
    fields = [field.name for field in dataclasses.fields(task)]  # pyright: ignore
    return _endless(type(task))(**{name: getattr(task, name) for name in fields})


@functools.cache
def _endless(kind: type[Task]) -> Any:
    return type(f"Endless{kind.__name__}", (kind,), {"solved": Task.solved})


def split_key(key: Array, split: str) -> Array:
    """Returns the key of one split, so that the same key draws other sequences in each."""
    check_choice("split", split, SPLITS)
    return jax.random.fold_in(key, SPLITS.index(split))


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean of -log softmax(logits)[label], in nats; logits [..., V], integer labels [...].

    Computed in float32 at least, whatever the outputs' dtype; so are the others here.
    """
    log_p = jax.nn.log_softmax(logits.astype(wide(logits.dtype)))
    return -jnp.mean(jnp.take_along_axis(log_p, labels[..., None], axis=-1))


def squared_error(predictions: Array, targets: Array) -> Array:
    """Mean of (prediction - target)^2; both [B]."""
    dtype = wide(predictions.dtype)
    return jnp.mean((predictions.astype(dtype) - targets.astype(dtype)) ** 2)


def labelled(logits: Array, labels: Array) -> Array:
    """1.0 where the largest logit is the label's, else 0.0; logits [..., V], labels [...]."""
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def within(tolerance: float, predictions: Array, targets: Array) -> Array:
    """1.0 where |prediction - target| < tolerance, else 0.0; both [B]."""
    dtype = wide(predictions.dtype)
    error = jnp.abs(predictions.astype(dtype) - targets.astype(dtype))
    return (error < tolerance).astype(jnp.float32)


def check_size(name: str, value: object, least: int) -> None:
    """Raises ValueError unless `value` is an int of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_choice(name: str, value: object, choices: tuple) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")
