"""Predictions of one trained network, or of several together."""

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lstm_jax.checks import check_size
from lstm_jax.data import convert, frames
from lstm_jax.data.series import to_forecast
from lstm_jax.data.splits import SPLITS
from lstm_jax.data.windows import Windows
from lstm_jax.tasks.predicting import Block
from lstm_jax.training import saved
from lstm_jax.training.step import run
from lstm_jax.training.trials import Trials, rates
from lstm_jax.types import Array, Model


class Predictor:
    """M trained networks; the prediction is their mean.

    Attributes:
      task: the problem of new rows (`Task.serving`), with units and names of inputs and answers.
      model: the network.
      params: parameters of the M networks, leaves [M, ...].
      trials: their M settings.
    """

    def __init__(self, task: Any, model: Model, params: Any, trials: Trials):
        self.task: Any = task.serving
        self.model, self.params, self.trials = model, params, trials

    def __len__(self) -> int:
        return len(self.trials.seed)

    def __repr__(self) -> str:
        return f"Predictor({len(self)} of {self.model!r} for {self.task!r})"

    def predict(
        self, x: Any, *, probabilities: bool = False, levels: Any = None, **given: Any
    ) -> Any:
        """Returns the predictions for new rows, in the units and names of the data.

        The result is an array, rows first; or, for answers at every time step of rows of different
        lengths, a list with an array for each row. Rows are padded to a few sizes, so few programs
        are compiled.

        Args:
          x: rows like the task's data, such as [N, T, D] or a list of [T_i, D]; or `Sequences`, a
            `Series` to forecast, or a text.
          probabilities: for classes, returns their probabilities instead of the labels.
          levels: for numbers with a distribution, returns these quantiles.
          **given: other arguments of the task's `encode`, such as lengths or static.

        Raises:
          ValueError: the rows do not have the features of the training rows.
          TypeError: the task predicts no probabilities, or no quantiles.
        """
        arrays = _rows(self.task).encode(x, **given)
        found = self._predictions(arrays, probabilities=probabilities, levels=levels)
        if self.task.readout == "last" or "lengths" not in arrays:
            return found
        return [row[:steps] for row, steps in zip(found, arrays["lengths"], strict=True)]

    def predict_table(self, series: Any, *, ends: Any = None, levels: Any = None) -> Any:
        """Returns the forecasts of `predict` as a table, one row for each time step ahead.

        The columns are the id and the time, named as in the table that the series came from, else
        `id` and `time`; `ahead`, 1 for the first time step; and `q0.1` or so for the quantiles, or
        `prediction`. The table is one of pandas or polars where the series came from one of these,
        else a dictionary of columns.

        Args:
          series: a `Series`, or values, as in `predict`.
          ends: [W, 2] windows, as in `predict`.
          levels: which quantiles.

        Raises:
          ValueError: as in `predict`; TypeError: the task is no `Forecast`.
        """
        self._check("table", "predict_table needs a task that is a Forecast")
        if not isinstance(series, Windows):
            series, ends = to_forecast(series, ends)  # once for both
        values = self.predict(series, ends=ends, levels=levels)
        return self.task.table(values, series, ends=ends, levels=levels)

    def evaluate(self, data: Any = "test") -> dict[str, float]:
        """Returns the metrics of a split, or of other data with targets.

        Args:
          data: "train", "validation" or "test"; or `Sequences` or `Windows` with targets; or, for a
            `LanguageModel`, any other text.

        Raises:
          ValueError: the split or the data have no rows.
        """
        task = _rows(self.task)
        if not isinstance(data, str) or (data not in SPLITS and hasattr(task, "vocabulary")):
            arrays = task.encode(data)
        elif not task.has_rows:
            right = f"data with targets: a saved predictor has no split, such as {data!r}"
            raise ValueError(f"data must be {right}")
        elif task.split_size(data) == 0:
            raise ValueError(f"data must be a split with rows, got {data!r}, which has none")
        else:
            arrays = task.rows(data)
        if task.parts(arrays):
            return task.scores_of_parts(self._parts(arrays))
        return task.scores(self._outputs(arrays), arrays)

    def stream(self, batch: int = 1) -> Callable[..., np.ndarray]:
        """Returns f(x_t, reset_t=None, *, mask_t=None, static=None) -> predictions [batch, ...].

        x_t has the features of one time step, [batch, D] or [D], in the units of the data. Calls
        share the state of the networks. Where reset_t, [batch] bool, is True, a new sequence starts
        with x_t. A time step holds the state where mask_t, [batch] bool, is False, and where it has
        no number, as in `predict`. static is [batch, S], as in training.

        The prediction for a whole sequence is the one after its last valid time step.

        Raises:
          ValueError: the network reads backwards.
          TypeError: the task is none of `Classification`, `Regression` and `Labelling`.
        """
        self._check("encode_step", "stream needs a task such as Labelling")
        check_size("batch", batch)
        task: Any = self.task
        state = [self._member_state(m, batch) for m in range(len(self))]
        advance, before = _advance(task.static, self.model), None

        def step(
            x_t: Any, reset_t: Any = None, *, mask_t: Any = None, static: Any = None
        ) -> np.ndarray:
            nonlocal before
            frames.check_names("x_t", task.known.names, frames.names_in_step(x_t))
            x_t = _one_step(x_t, batch, task.input_rank)
            arrays, outputs = task.encode_step(x_t, mask_t=mask_t, static=static), []
            reset = np.zeros(batch, bool)
            if reset_t is not None:
                reset = convert.flags("reset_t", reset_t, reset.shape)
            for m in range(len(self)):
                state[m], y = advance(self._member(self.params, m), state[m], arrays, reset)
                outputs.append(y)
            found = np.stack(outputs)
            if task.readout == "every":
                return task.predictions(found[:, None], arrays)[:, 0]
            if before is not None:
                held = ~arrays["mask"][:, 0] & ~reset
                found = np.where(held[:, None], before, found)
            before = found
            return task.predictions(found, arrays)

        return step

    def predict_stream(self, x: Iterable[Any], *, static: Any = None) -> Iterator[Any]:
        """Yields the prediction after each time step of one sequence.

        A prediction is a label or a number, or an array of them where a row has several targets.

        Args:
          x: the features of each time step in turn, each [D]; NaN is a missing number.
          static: [S], the features that are constant within the sequence.
        """
        step, static = self.stream(), None if static is None else np.asarray(static)[None]
        yield from (step(x_t, static=static)[0] for x_t in x)

    def generate(
        self, prompt: str | bytes, length: int, *, temperature: float = 1.0, seed: int = 0
    ) -> str:
        """Returns a sampled text that continues a prompt.

        Args:
          prompt: the start of the text, with one symbol of the training part at least; others are
            skipped.
          length: number of symbols to sample.
          temperature: divides the logarithms of probabilities; near 0 the most probable symbol is
            always sampled.
          seed: of the samples.

        Raises:
          ValueError: the prompt has no symbol of the training part, length is below 1, temperature
            is not positive, or the network reads backwards.
          TypeError: the task is no `LanguageModel`.
        """
        self._check("log_probabilities", "generate needs a task that is a LanguageModel")
        check_size("length", length)
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        numbers = self.task.vocabulary.encode(prompt).astype(np.int32)
        if not np.any(numbers < self.task.symbols):
            raise ValueError(f"prompt must have a symbol of the training part, got {prompt!r:.60}")
        read = np.pad(numbers, (0, length - 1))
        draw = _draw(self.task.static, self.model)
        key = jax.random.key(seed, impl="threefry2x32")
        drawn = draw(self.params, read, len(numbers), key, jnp.float32(temperature))
        return self.task.vocabulary.decode(np.asarray(drawn)[len(numbers) - 1 :])

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the networks, scales, class names and the hash of the data to a new directory.

        Raises:
          FileExistsError: the directory exists; it is not changed.
          TypeError: the model has a field that JSON cannot hold, such as a function.
        """
        saved.save(directory, _rows(self.task), self.model, self.params, self.trials)

    def _check(self, method: str, needed: str) -> None:
        """Raises TypeError unless the task has a method."""
        if not hasattr(self.task, method):
            raise TypeError(f"{needed}, got {self.task!r}")

    def _member(self, tree: Any, m: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[m], tree)

    def _member_state(self, m: int, batch: int) -> Any:
        model: Any = self.model
        return model.initial_state(self._member(self.params, m), batch)

    def _predictions(self, arrays: dict[str, Any], **options: Any) -> np.ndarray:
        chosen = {name: value for name, value in options.items() if value not in (None, False)}
        if not self.task.parts(arrays):
            return self.task.predictions(self._outputs(arrays), arrays, **chosen)
        parts = self._parts(arrays)
        return np.concatenate([self.task.predictions(*part, **chosen) for part in parts])

    def _parts(self, arrays: dict[str, Any]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Yields the outputs [M, n, B, V] of all networks for each part of time, and its arrays."""
        rows, model = self.task.count(arrays), self.model
        state = jax.vmap(lambda p: model.initial_state(p, rows))(self.params)  # pyright: ignore
        for block, outputs in self._blocks(arrays, state):
            yield outputs[:, : len(block.rows)], block.arrays

    def _blocks(
        self, arrays: dict[str, Any], state: Any = ()
    ) -> Iterator[tuple[Block, np.ndarray]]:
        """Yields blocks and their outputs; a state is carried from block to block."""
        if not self.task.count(arrays):
            raise ValueError("x must have rows, got none")
        answer = _outputs(self.task.static, self.model)
        for block in self.task.blocks(arrays):
            state, outputs = answer(self.params, self.trials, state, block.arrays, block.index)
            yield block, np.asarray(outputs)

    def _outputs(self, arrays: dict[str, Any]) -> np.ndarray:
        """Returns the outputs of all networks for all rows, [M, N, V] or [M, T, N, V]."""
        found = None
        for block, part in self._blocks(arrays):
            part = part[..., : len(block.rows), :]
            found = self._room(arrays, part) if found is None else found
            if part.ndim == 4:  # an answer every step, of a block padded in time
                found[:, : part.shape[1], block.rows] = part[:, : found.shape[1]]
            else:
                found[:, block.rows] = part
        assert found is not None
        return found

    def _room(self, arrays: dict[str, Any], part: np.ndarray) -> np.ndarray:
        """Returns zeros for the outputs of all rows."""
        steps = () if part.ndim == 3 else (self.task.steps(arrays),)
        shape = (len(self), *steps, self.task.count(arrays), part.shape[-1])
        return np.zeros(shape, part.dtype)


def load(directory: str | os.PathLike, classes: Iterable[type] = ()) -> Predictor:
    """Returns the predictor that `Predictor.save` wrote.

    Args:
      directory: its directory.
      classes: your own classes in it, such as a cell.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, has another format, or names an unknown class.
    """
    return Predictor(*saved.load(directory, classes))


def _one_step(x_t: Any, batch: int, rank: int) -> np.ndarray:
    """Returns the features of one time step, [batch, D] or [batch]."""
    x_t = convert.numbers("x_t", x_t)
    x = x_t[None] if x_t.ndim == rank and batch == 1 else x_t
    if x.ndim != rank + 1 or len(x) != batch:
        right = f"[{batch}, D]" if rank else f"[{batch}]"
        raise ValueError(f"x_t must be {right}, got shape {list(x_t.shape)}")
    return x


def _rows(task: Any) -> Any:
    if not hasattr(task, "predictions"):
        raise TypeError(
            f"predictions need a task over data, such as Classification, got {task!r}; "
            "lj.interop.save_model saves a network of any task"
        )
    return task


@functools.lru_cache(maxsize=16)
def _outputs(task: Any, model: Model) -> Callable[..., tuple[Any, Array]]:
    """Returns f(params, trials, state, arrays, index) -> state, outputs [M, ..., V], compiled."""

    def one(member, batch):
        params, trial, state = member
        return run(model, params, batch, state, rates=rates(trial))

    def all_of_them(params, trials, state, arrays, index):
        batch = task.batch(arrays, index, jnp.ones(len(index)))._replace(y=None)
        return lax.map(lambda member: one(member, batch), (params, trials, state))

    return jax.jit(all_of_them)


@functools.lru_cache(maxsize=16)
def _advance(task: Any, model: Any) -> Callable[..., tuple[Any, Array]]:
    """Returns f(params, state, arrays of one time step, resets) -> state and outputs, compiled."""

    def advance(params, state, arrays, reset_t):
        count = len(arrays["x"])
        batch = task.batch(arrays, jnp.arange(count, dtype=jnp.int32), jnp.ones(count))
        return model.stream(params, state, batch.x[0], mask_t=batch.mask[0], reset_t=reset_t)

    return jax.jit(advance)


@functools.lru_cache(maxsize=16)
def _draw(task: Any, model: Any) -> Callable[..., Array]:
    """Returns f(params, numbers [T], count, key, temperature) -> samples [T], compiled.

    After the first `count` numbers, the sample of a time step is the input of the next one.
    """

    def draw(params, numbers, count, key, temperature):
        def step(carry, at):
            state, drawn = carry
            t, number = at
            x = jnp.where(t < count, number, drawn)
            known = x < task.symbols
            one = functools.partial(model.stream, x_t=jnp.where(known, x, 0)[None])
            state, outputs = jax.vmap(lambda p, s: one(p, s, mask_t=known[None]))(params, state)
            log_p = task.log_probabilities(outputs[:, :, None])[0]
            drawn = jax.random.categorical(jax.random.fold_in(key, t), log_p / temperature)
            return (state, drawn.astype(jnp.int32)), drawn

        state = jax.vmap(lambda p: model.initial_state(p, 1))(params)
        times = jnp.arange(len(numbers), dtype=jnp.int32)
        return lax.scan(step, (state, jnp.int32(0)), (times, numbers))[1]

    return jax.jit(draw)
