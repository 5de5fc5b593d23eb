"""Learning: a batch of training runs as one compiled program."""

import contextlib
import functools
import inspect
from collections.abc import Sequence
from typing import Any

from lstm_jax.checks import check_is, check_names, check_size
from lstm_jax.runs import hosts
from lstm_jax.runs.directory import NoLog, RunDirectory
from lstm_jax.runs.loggers import Logged, Logger
from lstm_jax.runs.progress import meter
from lstm_jax.runs.records import plain
from lstm_jax.tasks.base import Rows, Task
from lstm_jax.training import agreement
from lstm_jax.training.feeds import Source, check_source
from lstm_jax.training.loop import Job, fingerprint
from lstm_jax.training.optimizers import Optimizer
from lstm_jax.training.results import Result, result_of
from lstm_jax.training.step import Settings, State, Validated, steps_per_epoch
from lstm_jax.training.trials import Trials, make_trials, over_seeds
from lstm_jax.types import Model

CHUNK = 100
OF_THE_MODEL = ("hidden", "width", "unit", "depth", "layer", "cell", "bidirectional")  # in names


def fit(
    task: Task,
    model: Model,
    trials: Trials | None = None,
    steps: int | None = None,
    *,
    epochs: int | None = None,
    source: Source | None = None,
    seeds: int | Sequence[int] | None = None,
    batch_size: int = 16,
    optimizer: Optimizer = "adam",
    average: float | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    plateau: int | None = None,
    factor: float = 0.5,
    batching: str = "auto",
    window: int | None = None,
    chunk: int | None = None,
    begin_from: State | None = None,
    run: RunDirectory | None = None,
    group: str = "main",
    loggers: Sequence[Logger] = (),
    progress: bool = True,
    **hyperparameters: Any,
) -> Result:
    """Trains R trials as one compiled program.

    The data and noise of a trial depend on its seed and the step alone. A trial stops alone: before
    an update whose loss, gradient or result is not finite, or after the update that solves its
    task. Training ends when no trial is running. `Result.reason` has the cause of a divergence, and
    a warning names a batch that no model can learn from.

    With `epochs` each trial visits the training rows in its own order, each row once per epoch. The
    last batch of an epoch has the remaining rows, and its loss is their mean. With `steps` rows are
    drawn with replacement.

    A `Stream` gives one window per update. The model's final state starts the next window as a
    constant, so no gradient crosses windows: truncated backpropagation through time.

    With a run directory, every chunk appends a record for each running trial to the ledger:
    {"kind": "progress", "group", "trial", "step", "loss", "metric"}. Checkpoints are saved every
    few seconds and at the end. After a kill, the same call continues from the last checkpoint.
    `run.finish(group, result_records(...), result.params)` then closes the group.

    Args:
      task: the problem.
      model: the network, hashable and equal by value; a `StreamModel` if the task is a stream.
      trials: R settings from `make_trials`; or give `seeds` and hyperparameters.
      steps: updates of each trial; or give `epochs`.
      epochs: passes over the training rows; the task must have rows.
      source: rows to read during training instead of the task's training rows: pairs
        (x, y) = source[i], for i below `len(source)`. All trials get the same batches.
      seeds: a number of seeds, or a list; each setting of hyperparameters runs with each seed.
      batch_size: B, sequences of an update.
      optimizer: "sgd", "momentum", "nesterov", "rmsprop", "adam" or "adamw"; or a function of one
        trial (scalars) that returns an `optax.GradientTransformation`.
      average: decay of a moving average of the parameters, such as 0.999. The average is then
        validated and returned. None for no average.
      validate_every: updates from one validation to the next; by default one epoch, with `epochs`
        and a validation split, else no validation.
      patience: validations without a lower loss after which a trial stops.
      plateau: validations without a lower loss after which the learning rate falls.
      factor: the factor by which it falls, in (0, 1).
      batching: "map": each device trains one trial at a time, and its numbers depend on no other.
        "vmap": each device trains its trials together. "auto": map on a CPU, vmap elsewhere. With
        fewer trials than devices, devices share the batch of a trial, except with "map", and with
        "auto" for less than 16 sequences per device of a CPU. A CPU is one device unless
        `jax_num_cpu_devices` is set.
      window: time steps from one update to the next within a batch, a divisor of the task's length;
        by default one update per batch. States pass between windows as constants. A step is still
        a batch; its loss is that of the outputs before each update.
      chunk: steps from one progress record to the next; an epoch, or 100, by default.
      begin_from: the initial state of the trials, leaves [R, ...]: rows of `state` of earlier
        results, whose steps count towards `steps`, or the result of `fresh`. By default the model
        draws parameters. On a CPU with map, a continued trial equals an uninterrupted one bit for
        bit. A stopped trial stays as it is.
      run: the run directory for records, curves and checkpoints; none by default.
      group: the name of these trials in the run.
      loggers: functions that get the progress records, such as `runs.loggers.wandb(run)`.
      progress: whether to show a bar (in a terminal) or occasional lines (elsewhere).
      **hyperparameters: those of `make_trials`, such as learning_rate=[1e-3, 1e-2].

    Raises:
      ValueError: an argument is out of range, outputs do not have the task's shape, `begin_from`
        does not fit these trials, or the group is finished or has other settings or data.
      TypeError: an argument has the wrong type or is unknown, or the task needs a model that takes
        and returns states.
      Preempted: SIGTERM arrived; everything is saved (with a run directory only).
    """
    trials = _trials(trials, seeds, hyperparameters)
    agreement.check_kinds(task, model, trials)
    agreement.check_run(run)
    check_is("loggers", loggers, Sequence, "a list of functions, such as [print]")
    _check_counts(batch_size=batch_size, window=window, chunk=chunk, validate_every=validate_every)
    agreement.check_windows(task, model, window)
    steps, epoch = _length(task, steps, epochs, batch_size, source)
    rules = _rules(task, validate_every or epoch, patience, plateau, factor)
    settings = Settings(
        batch_size,
        optimizer,
        batching,
        window,
        epochs=epochs is not None and source is None,
        fed=source is not None,
        validated=rules,
        average=_decay(average),
    )
    chunk = chunk or epoch or CHUNK
    job = Job(task, model, trials, settings, source=source)
    asked = job.describe() | {"steps": steps, "chunk": chunk}
    asked |= {} if begin_from is None else {"begin_from": fingerprint(begin_from)}
    hosts.check_alike(f"the settings of group {group!r}", plain(asked))
    bar = functools.partial(meter, progress and hosts.leads(), group)
    with run.open_group(group, asked) if run else contextlib.nullcontext(NoLog()) as log:
        log = Logged(log, loggers) if loggers else log
        state = job.train(steps, chunk, log, bar, begin_from)
    return result_of(task, job.model, trials, state, job.reasons(state))


def _trials(trials: Trials | None, seeds: Any, hyperparameters: dict[str, Any]) -> Trials:
    """Returns `trials`, or the trials of `seeds` and `hyperparameters`."""
    advice = "it belongs to the model; lj.search.sweep searches widths, depths and cells"
    known = [*inspect.signature(fit).parameters, *Trials._fields]
    known.remove("hyperparameters")
    check_names("fit", hyperparameters, known, dict.fromkeys(OF_THE_MODEL, advice))
    if trials is None:
        settings = make_trials(**hyperparameters)
        return settings if seeds is None else over_seeds(settings, seeds)
    if seeds is not None or hyperparameters:
        other = "seeds" if seeds is not None else next(iter(hyperparameters))
        raise ValueError(f"{other} must be given in make_trials where trials are given")
    return trials


def _length(
    task: Task, steps: int | None, epochs: int | None, batch_size: int, source: Source | None
) -> tuple[int, int | None]:
    """Returns the updates of each trial, and of one epoch; None where `steps` is given."""
    if (steps is None) == (epochs is None):
        raise ValueError(f"one of steps and epochs must be given, got {steps=}, {epochs=}")
    _check_counts(steps=steps, epochs=epochs)
    if source is not None:
        check_source(task, source)
    if epochs is None:
        assert steps is not None
        return steps, None
    epoch = epoch_of(task, batch_size, source)
    return epochs * epoch, epoch


def epoch_of(task: Task, batch_size: int, source: Source | None = None) -> int:
    """Returns the updates in which a trial goes once through the training rows.

    Raises:
      ValueError: the task has no rows to train on.
    """
    if not isinstance(task, Rows):
        raise ValueError(f"epochs need a task with rows of data, {task.name} has none: give steps")
    rows = task.split_size("train") if source is None else len(source)
    if rows == 0:
        raise ValueError(f"the training split of {task.name} must have rows, got none")
    return steps_per_epoch(rows, batch_size)


def _rules(
    task: Task, every: int | None, patience: int | None, plateau: int | None, factor: float
) -> Validated | None:
    """Returns the rules of validation; None without validation."""
    _check_counts(patience=patience, plateau=plateau)
    if not 0 < factor < 1:
        raise ValueError(f"factor must be in (0, 1), got {factor}")
    if every is not None and task.split_size("validation") != 0:
        return Validated(every, patience=patience, plateau=plateau, factor=factor)
    if patience is not None or plateau is not None:
        name, value = ("patience", patience) if patience else ("plateau", plateau)
        raise ValueError(f"{name}={value} needs validate_every and a validation split with rows")
    return None


def _decay(average: float | None) -> float | None:
    if average is not None and not 0 < average < 1:
        raise ValueError(f"average must be a decay in (0, 1), such as 0.999, got {average}")
    return average


def _check_counts(**counts: int | None) -> None:
    """Raises ValueError unless each count is None or an integer of at least 1."""
    for name, value in counts.items():
        if value is not None:
            check_size(name, value)
