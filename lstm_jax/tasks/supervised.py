"""The common part of problems over rows of sequences: arrays, batches and losses."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import jax.numpy as jnp
import numpy as np

from lstm_jax.data import Sequences, Split, convert, scaling
from lstm_jax.data.scaling import Scale
from lstm_jax.tasks import answers, base, heads, inputs
from lstm_jax.tasks.supervised_answers import Answers
from lstm_jax.types import Array, Batch


class Form(NamedTuple):
    """The sizes of a program over rows.

    Attributes:
      length: T, the time steps of the longest row.
      width: D, the width of an input, or the number of symbols.
      symbols: whether inputs are integer symbols.
      missing: as in `Sequences`.
      targets: K, the number of targets of an answer.
    """

    length: int
    width: int
    symbols: bool
    missing: Any
    targets: int


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """The data of a task and constants fitted to them; equal to itself alone.

    Attributes:
      arrays: all rows, their splits, and "fitted", the constants.
      classes: the labels in the order of their numbers; () for numeric targets.
      names: the names of the features; () without.
      chance: the metric of the best answer that ignores the input.
      digest: the hash of the data.
      static_names: the names of the static features; () without.
    """

    arrays: dict[str, Any]
    classes: tuple[Any, ...]
    names: tuple[str, ...]
    chance: float
    digest: str
    static_names: tuple[str, ...] = ()


class Numbers(NamedTuple):
    """Numeric targets [..., K] as the head takes them, and the unit of an error."""

    value: Array
    unit: Array


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Supervised(Answers, base.Rows):
    """A problem over rows of sequences with targets.

    x has the numbers of a time step, with mean 0 and standard deviation 1 over the training rows
    and 0 for missing numbers, then the indicators of missing numbers and the static features.
    Symbols stay integers [T, B]. y is a `Target` of values [B, K] or [T, B, K]: numbers of classes,
    zeros and ones, or `Numbers`.

    The loss is that of the head. The metric of classes is accuracy. The metric of numbers is R2,
    1 - mean(((prediction - y) / s)^2), with s the standard deviation of the training targets. An
    answer is correct if all classes are right, or if each predicted number is nearer to its target
    than the mean of the training targets.

    Attributes:
      form: the sizes.
      head: the loss of the outputs, and the predictions that they encode.
      importance: the weight of each class in the loss, with mean 1 over the training rows; or None.
      known: the data and constants fitted to them; None in `static`.
    """

    form: Form
    head: heads.Head
    importance: tuple[float, ...] | None
    known: Known | None

    # To be defined by a subclass. -----------------------------------------------------------------

    @abc.abstractmethod
    def _targets(self, data: Sequences) -> tuple[np.ndarray, np.ndarray]:
        """Returns y [N, K] or [N, T, K], and a bool [N, 1] or [N, T, 1], True where y counts."""

    # Construction. --------------------------------------------------------------------------------

    def _build(self, split: Split, fitted: answers.Fitted) -> None:
        """Stores the constants fitted to the training rows, and the arrays of all rows."""
        data, train = split.data, split.rows["train"]
        symbols = inputs.symbols(data, train)
        form = Form(
            length=data.steps,
            width=symbols or inputs.width(data),
            symbols=bool(symbols),
            missing=data.missing,
            targets=self._targets(data)[0].shape[-1],
        )
        constants = {"fitted": inputs.fit(data, train) | dict(fitted.constants)}
        answers = (fitted.classes, data.names, fitted.chance, split.digest)
        known = Known(constants, *answers, data.static_names)
        self._set(form=form, head=fitted.head, importance=fitted.importance, known=known)
        arrays = self.encode(data) | {"splits": split.rows}
        self._set(known=dataclasses.replace(known, arrays=arrays))

    def encode(
        self, x: Any, *, lengths: Any = None, mask: Any = None, static: Any = None, y: Any = None
    ) -> dict[str, Any]:
        """Returns the arrays of new rows, in the form that `batch` takes.

        Args:
          x: `Sequences`, or the arguments of `Sequences`, as all others.
          lengths: [N] time steps of each sequence.
          mask: [N, T], False at time steps that do not count.
          static: [N, S] numbers.
          y: targets; None for rows without targets.

        Raises:
          ValueError: the rows do not have the features or the classes of the training rows.
        """
        known = self._known()
        if not isinstance(x, Sequences):
            options = dict(lengths=lengths, mask=mask, static=static, missing=self.form.missing)
            x = Sequences(x, y, **options)
        inputs.check_form(x, known, self.form.symbols, self.form.missing)
        arrays = inputs.arrays_of(x) | {"fitted": known.arrays["fitted"]}
        if x.y is None:
            return arrays
        values, counts = self._targets(x)
        if self.head.answers == "class":
            return arrays | {"y": answers.numbered(values, counts, known.classes)}
        return arrays | {"y": answers.as_numbers(values, counts)}

    def encode_step(self, x_t: Any, *, mask_t: Any = None, static: Any = None) -> dict[str, Any]:
        """Returns the arrays of one time step of B rows; "mask" is False where it holds the state.

        Args:
          x_t: [B, D] numbers or [B] symbols.
          mask_t: [B], False where the time step does not count.
          static: [B, S] numbers.

        Raises:
          ValueError: x_t does not have the features of the training rows, or mask_t is not [B].
        """
        counts = np.ones(len(x_t), bool)
        if mask_t is not None:
            counts = convert.flags("mask_t", mask_t, counts.shape)
        if self.holds_missing:
            counts = counts & ~np.isnan(x_t).all(-1)
        shown = np.where(counts.reshape(-1, *[1] * (x_t.ndim - 1)), x_t, np.zeros_like(x_t))
        return self.encode(shown[:, None], static=static) | {"mask": counts[:, None]}

    def encode_rows(self, rows: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
        """Returns the arrays of pairs (x, y), padded to the longest row of the task.

        Raises:
          ValueError: a row is longer, or does not have the features or the classes of the task.
        """
        arrays = self.encode([x for x, _ in rows], y=[y for _, y in rows])
        count, steps = arrays["x"].shape[:2]
        if steps > self.form.length:
            most = f"{self.form.length} time steps, as the rows of the task have"
            raise ValueError(f"source must give rows of at most {most}, got {steps}")
        arrays = {"lengths": np.full(count, steps, np.int32)} | arrays
        return {name: self._to_length(name, value) for name, value in arrays.items()}

    def _to_length(self, name: str, value: Any) -> Any:
        per_step = ("x", "mask", "y") if self.readout == "every" else ("x", "mask")
        return convert.to_length(value, self.form.length) if name in per_step else value

    # The contract of tasks. -----------------------------------------------------------------------

    def __repr__(self) -> str:
        content = f", data {self.known.digest[:8]}" if self.known else ""
        kind = "symbols" if self.form.symbols else "inputs"
        sizes = f"{self.form.length} time steps, {self.form.width} {kind}, {self.head}"
        return f"{type(self).__name__}({sizes}{content})"

    @property
    def static(self) -> Self:
        """The sizes, the head and the weights of classes."""
        return self._of(form=self.form, head=self.head, importance=self.importance, known=None)

    @property
    def input_size(self) -> int:
        """D, or the number of symbols."""
        return self.form.width

    @property
    def input_kind(self) -> Literal["numbers", "symbols"]:  # pyright: ignore
        """The kind of inputs, "numbers" [T, B, D] or "symbols" [T, B]."""
        return "symbols" if self.form.symbols else "numbers"

    @property
    def output_size(self) -> int:
        """V, the outputs of the head for all targets."""
        return self.head.width(self.form.targets)

    @property
    def length(self) -> int:
        """T, the time steps of the longest row."""
        return self.form.length

    @property
    def classes(self) -> tuple[Any, ...]:
        """The labels in the order of their numbers; () for numeric targets."""
        return self._known().classes

    @property
    def input_scale(self) -> Scale | None:
        """The scale of the features of x; None for symbols."""
        return self._known().arrays["fitted"].get("x")

    @property
    def holds_missing(self) -> bool:
        """Whether a time step without any number holds the state."""
        return self.form.missing == "mask" and not self.form.symbols

    @property
    def metric_name(self) -> str:  # pyright: ignore
        """The name of the metric: accuracy of classes, R2 of numbers."""
        return "accuracy" if self._has_classes else "R2 against the training variance"

    def batch(self, arrays: dict[str, Any], index: Array, weight: Array) -> Batch:
        """Returns rows as x [T, B, D] and y, a `Target`, or None for rows without targets."""
        symbols = self.form.width if self.form.symbols else 0
        x, mask = inputs.gather(arrays, index, symbols, self.form.missing == "indicator")
        y = self._target(arrays, index, weight, mask) if "y" in arrays else None
        return Batch(x, y, mask)

    def _target(self, arrays: Any, index: Array, weight: Array, mask: Any) -> base.Target:
        value, weight = jnp.asarray(arrays["y"])[index], jnp.asarray(weight, jnp.float32)
        if "weight" in arrays:
            weight = weight * jnp.asarray(arrays["weight"])[index]
        if self.readout == "every":
            value = jnp.swapaxes(value, 0, 1)
            weight = jnp.broadcast_to(weight[None], value.shape[:2])
            weight = weight if mask is None else jnp.where(mask, weight, 0)
        known = ~jnp.isnan(value) if value.dtype == jnp.float32 else value >= 0
        weight = jnp.where(known.all(-1), weight, 0)
        value = jnp.where((weight > 0)[..., None], value, jnp.zeros_like(value))
        return base.Target(self._scaled(arrays, value), weight)

    def _scaled(self, arrays: Any, value: Array) -> Array | Numbers:
        if self._has_classes:
            return value
        mean, scale = (_like(value, leaf) for leaf in arrays["fitted"]["y"])
        unit = jnp.broadcast_to(_like(value, arrays["fitted"]["unit"]), value.shape)
        return Numbers((value - mean) / scale, unit)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the weighted mean of the head's loss, averaged over targets."""
        value = batch.y.value.value if isinstance(batch.y.value, Numbers) else batch.y.value
        each = jnp.mean(self.head.losses(self._split(outputs), value), axis=-1)
        if self.importance is not None:
            each = each * jnp.asarray(self.importance, each.dtype)[value[..., 0]]
        return base.weighted_mean(each, batch.y.weight.astype(each.dtype))

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the accuracy of classes, or R2 of numbers."""
        right = self._right(outputs, batch) if self._has_classes else self._r2(outputs, batch)
        return base.weighted_mean(jnp.mean(right, axis=-1), batch.y.weight.astype(right.dtype))

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where the whole answer to a row is right, else 0, [B]."""
        right = jnp.all(self._right(outputs, batch) > 0, axis=-1)
        counts = batch.y.weight > 0
        if self.readout == "every":
            right, counts = jnp.all(right | ~counts, axis=0), jnp.any(counts, axis=0)
        return (right & counts).astype(jnp.float32)

    def _right(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1.0 for each right target, else 0.0, [..., K]."""
        predictions, value = self.head.predict(self._split(outputs)), batch.y.value
        if not isinstance(value, Numbers):
            return (predictions == value.astype(jnp.int32)).astype(jnp.float32)
        error, target = predictions - value.value.astype(predictions.dtype), value.value
        return (jnp.abs(error) < jnp.abs(target).astype(error.dtype)).astype(jnp.float32)

    def _r2(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 - ((prediction - y) / s)^2 of each target, [..., K]."""
        value, unit = (leaf.astype(jnp.float32) for leaf in batch.y.value)
        predictions = self.head.predict(self._split(outputs)).astype(jnp.float32)
        return 1 - ((predictions - value) / unit) ** 2

    # Saved with a model. --------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns the requirements of predictions: JSON values, and constants as arrays."""
        known = self._known()
        description = {
            "kind": type(self).__name__,
            "form": self.form._asdict(),
            "head": self.head.describe(),
            "importance": self.importance,
            "classes": known.classes,
            "names": known.names,
            "static_names": known.static_names,
            "chance": known.chance,
            "digest": known.digest,
        }
        return description, inputs.flat(known.arrays["fitted"])

    @classmethod
    def serving_for(
        cls, task: base.Task, head: heads.Head, *, targets: int = 1, **known: tuple[Any, ...]
    ) -> Self:
        """Returns the task of new rows for models of another task; inputs are not scaled.

        Args:
          task: the other task, with numbers as inputs.
          head: the loss of its outputs.
          targets: K, the number of targets of a row.
          **known: the classes and the names of the features.
        """
        form = Form(task.length, task.input_size, False, "mask", targets)
        fitted = {"fitted": {"x": scaling.identity(task.input_size)}}
        everything = {"classes": (), **known, "chance": task.chance, "digest": task.digest}
        return cls._of(form=form, head=head, importance=None, known=Known(fitted, **everything))

    @classmethod
    def restore(cls, description: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Returns a task without rows from its `state`."""
        weights = description["importance"]
        known = Known(
            {"fitted": inputs.unflat(arrays)},
            tuple(description["classes"]),
            tuple(description["names"]),
            description["chance"],
            description["digest"],
            tuple(description.get("static_names", ())),
        )
        return cls._of(
            form=Form(**description["form"]),
            head=heads.make(**description["head"]),
            importance=None if weights is None else tuple(weights),
            known=known,
        )


def _like(value: Array, constant: Any) -> Array:
    """Returns constants [K] with the rank of values [..., K]."""
    return jnp.asarray(constant).reshape((1,) * (value.ndim - 1) + (-1,))
