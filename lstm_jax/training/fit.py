"""Learning: a batch of training runs as one compiled program."""

import contextlib
import functools
import inspect
from collections.abc import Sequence
from typing import Any

from lstm_jax.checks import check_names, check_size
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

    A trial draws its data and noise from its seed and the step alone. One whose loss, gradient or
    update is not finite is frozen before the update that would spoil it, one that the task calls
    solved after the update that made it so; its neighbours never notice. Training ends when none is
    running. `Result.reason` says why a trial diverged; a batch that no model can learn from is
    warned of, too.

    With `epochs` each trial goes through the training rows in an order of its own, every row once
    before any twice; the last batch of an epoch has the rows that are left, and its loss is their
    mean. With `steps` rows are drawn with replacement.

    A task that is a `Stream` comes in windows, one an update. The model's state after a window
    starts the next one as a number, so that no gradient goes back over the seam: truncated
    backpropagation through time.

    With a run directory, every chunk puts a line for each running trial on the ledger, {"kind":
    "progress", "group", "trial", "step", "loss", "metric"}, checkpoints are saved every few seconds
    and at the end, and the same call after a kill goes on from the last one. `run.finish(group,
    result_records(...), result.params)` then closes the group.

    Args:
      task: the problem.
      model: the network, hashable and equal by value; a `StreamModel` if the task is a stream.
      trials: R settings, see `make_trials`; or give `seeds` and hyperparameters.
      steps: updates of each trial; or give `epochs`.
      epochs: passes through the training rows; the task must have rows.
      source: rows that are read while training, in place of the training rows of the task: pairs
        (x, y) by `source[i]`, `len(source)` of them. All trials see the same batches.
      seeds: how many, or which: every setting of the hyperparameters is trained with each.
      batch_size: B, sequences a step.
      optimizer: "sgd", "momentum", "nesterov", "rmsprop", "adam" or "adamw"; or a function of one
        trial (scalars) that returns an `optax.GradientTransformation`.
      average: decay of a moving average of the parameters, such as 0.999, which then is validated
        and returned; None for none.
      validate_every: updates from one validation to the next; by default one epoch, with `epochs`
        and a validation split, else there is none.
      patience: validations without a lower loss after which a trial stops.
      plateau: validations without a lower loss after which its learning rate is reduced.
      factor: what it is multiplied by, in (0, 1).
      batching: "vmap", "map", or "auto": map on a CPU, vmap elsewhere. With vmap, trials that are
        fewer than devices share their batches out, see `parallel.sharing`. With map each device
        trains one trial at a time; `jax_num_cpu_devices` is 1 unless it is set.
      window: time steps of a sequence from one update to the next, a divisor of the task's length;
        by default one update a batch. The model's state goes on as a number, so that gradients end
        at a window's beginning. Steps are still batches, and a loss is of a batch as it was
        answered.
      chunk: steps from one progress record to the next; an epoch, or 100, by default.
      begin_from: where the trials start, leaves [R, ...]: rows of earlier results' `state`, whose
        steps count towards `steps`, or what `fresh` makes of parameters; by default what the model
        draws. A trial that goes on is the trial trained straight through, bit for bit with map on
        a CPU; one that had stopped stays as it is.
      run: where to leave records, curves and checkpoints; nowhere by default.
      group: what the run calls these trials.
      loggers: functions that get the progress records, such as `runs.loggers.wandb(run)`.
      progress: whether to show a bar (in a terminal) or a line now and then (elsewhere).
      **hyperparameters: those of `make_trials`, such as learning_rate=[1e-3, 1e-2].

    Raises:
      ValueError: an argument out of its range, outputs that are not of the task's shape, a
        `begin_from` that is not of these trials' shapes, or a group that is finished or was begun
        with other settings or data.
      TypeError: an argument is of another kind or unknown; or the task is a stream, or it comes in
        windows, and the model takes and returns no states.
      Preempted: SIGTERM came; everything is saved (with a run directory only).
    """
    trials = _trials(trials, seeds, hyperparameters)
    agreement.check_kinds(task, model, trials)
    agreement.check_run(run)
    _check_counts(batch_size=batch_size, window=window, chunk=chunk)
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
    hosts.check_alike(f"what {group!r} is asked", plain(asked))
    bar = functools.partial(meter, progress and hosts.leads(), group)
    with run.open_group(group, asked) if run else contextlib.nullcontext(NoLog()) as log:
        log = Logged(log, loggers) if loggers else log
        state = job.train(steps, chunk, log, bar, begin_from)
    return result_of(task, job.model, trials, state, job.reasons(state))


def _trials(trials: Trials | None, seeds: Any, hyperparameters: dict[str, Any]) -> Trials:
    """Returns the settings that are given in one of two ways."""
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
    """Returns the updates of each trial, and those of an epoch if they are counted in epochs."""
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
    """Returns what validation does, None where there is none."""
    _check_counts(validate_every=every, patience=patience, plateau=plateau)
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
    """Raises ValueError unless each that is given is an integer of at least 1."""
    for name, value in counts.items():
        if value is not None:
            check_size(name, value)
