"""Learning: a batch of training runs as one compiled program."""

import contextlib
import functools
import re
import time
import warnings
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh

from lstm_jax.runs import hosts
from lstm_jax.runs.directory import NoLog, Preempted, RunDirectory
from lstm_jax.runs.progress import Quiet, meter
from lstm_jax.runs.records import plain
from lstm_jax.tasks.base import Stream, Task
from lstm_jax.training import agreement, captures, divergence, optimizers, parallel
from lstm_jax.training.divergence import RUNNING, STATUS
from lstm_jax.training.evaluation import Evaluation, evaluate
from lstm_jax.training.results import Result, Snapshot, result_of, result_records
from lstm_jax.training.step import (
    Settings,
    State,
    batch_stats,
    begin,
    begin_with,
    count_step,
    draw,
    take_step,
)
from lstm_jax.training.trials import Trials, describe_trials, make_trials
from lstm_jax.types import Array, Model

__all__ = [
    "Evaluation",
    "Preempted",
    "Result",
    "RunDirectory",
    "State",
    "Trials",
    "evaluate",
    "fit",
    "footprint",
    "fresh",
    "lower",
    "make_trials",
    "result_records",
    "state_shapes",
]

PATIENCE = 1.0  # seconds between two looks at the clock and for SIGTERM, about


class Loop(NamedTuple):
    """The compiled loop: `begin(trials)` and `run((trials, idle, state), stop)` give a State."""

    begin: jax.stages.Wrapped
    run: jax.stages.Wrapped


class Lowered(NamedTuple):
    """What `fit` compiles: the program that begins the trials, and the one that trains them."""

    begin: jax.stages.Lowered
    run: jax.stages.Lowered


def fit(
    task: Task,
    model: Model,
    trials: Trials,
    steps: int,
    *,
    batch_size: int = 16,
    optimizer: str = "adam",
    batching: str = "auto",
    window: int | None = None,
    chunk: int = 100,
    begin_from: State | None = None,
    run: RunDirectory | None = None,
    group: str = "main",
    progress: bool = True,
) -> Result:
    """Trains R trials for `steps` updates each, as one compiled program.

    A trial draws its data and noise from its seed and the step alone. One whose loss, gradient or
    update is not finite is frozen before the update that would spoil it, one that the task calls
    solved after the update that made it so; its neighbours never notice. Training ends when none is
    running. `Result.reason` says why a trial diverged; a batch that no model can learn from is
    warned of, too.

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
      trials: R settings, see `make_trials`.
      steps: updates of each trial.
      batch_size: B, sequences a step.
      optimizer: "sgd", "momentum", "nesterov", "rmsprop", "adam" or "adamw".
      batching: "vmap", "map", or "auto": map on a CPU, vmap elsewhere. With vmap, trials that are
        fewer than devices share their batches out, see `parallel.sharing`.
      window: instants of a sequence from one update to the next, a divisor of the task's length; by
        default one update a batch. The model's state goes on as a number, so that gradients end at
        a window's beginning. Steps are still batches, and a loss is of a batch as it was answered.
      chunk: steps from one progress record to the next.
      begin_from: where the trials start, leaves [R, ...]: rows of earlier results' `state`, whose
        steps count towards `steps`, or what `fresh` makes of parameters; by default what the model
        draws. A trial that goes on is the trial trained straight through, bit for bit with map on
        a CPU; one that had stopped stays as it is.
      run: where to leave records, curves and checkpoints; nowhere by default.
      group: what the run calls these trials.
      progress: whether to show a bar (in a terminal) or a line now and then (elsewhere).

    Raises:
      ValueError: an argument out of its range, outputs that are not of the task's shape, a
        `begin_from` that is not of these trials' shapes, or a group that is finished or was begun
        with other settings.
      TypeError: an argument is of another kind; or the task is a stream, or it comes in windows,
        and the model takes and returns no states.
      Preempted: SIGTERM came; everything is saved (with a run directory only).
    """
    agreement.check_kinds(task, model, trials)
    if run is not None and not isinstance(run, RunDirectory):
        raise TypeError(
            f"run must be a RunDirectory, such as RunDirectory.create makes, got {run!r}"
        )
    _check_counts(steps=steps, chunk=chunk, **({} if window is None else {"window": window}))
    agreement.check_windows(task, model, window)
    settings, mesh = _settle(task, trials, batch_size, optimizer, batching, parallel.everywhere())
    settings = settings._replace(window=window)
    layout = parallel.Layout(len(trials.seed), settings.batching, mesh)
    asked = _describe(task, model, trials) | settings._asdict() | {"steps": steps, "chunk": chunk}
    asked |= {} if begin_from is None else {"begin_from": _fingerprint(begin_from)}
    hosts.check_alike(f"what {group!r} is asked", plain(asked))
    with run.open_group(group, asked) if run else contextlib.nullcontext(NoLog()) as log:
        captured = _captured(task, model, settings, trials)
        loop, placed = _loop(task, model, settings, mesh, captured), layout.spread(trials)
        step, state = _start(loop, layout, placed, log, begin_from)
        done = int(Snapshot.of(layout, state).step.sum())
        with contextlib.closing(meter(progress and hosts.leads(), group, done)) as bar:

            def advance(state, stop):
                return loop.run((placed, layout.idle, state), stop)

            state = _train(advance, layout, state, step, steps, chunk, log, bar)
    state = layout.gather(state)
    return result_of(state, _reasons(task, settings, captured, trials, state))


def lower(
    task: Task,
    model: Model,
    trials: Trials,
    devices: parallel.Devices,
    *,
    batch_size: int = 16,
    optimizer: str = "adam",
    batching: str = "auto",
) -> Lowered:
    """Returns the programs that `fit` would run on `devices`, traced and lowered, not compiled.

    The devices need not be here: those of `jax.experimental.topologies` will do, so that programs
    can be compiled and looked at ahead of time. "auto" batching is that of the devices; a model's
    "auto" engine is not, see `SequenceSpec.on`.

    Args:
      task: the problem.
      model: the network.
      trials: R settings; only their number and kinds matter.
      devices: where it is to run, all of one platform.
      batch_size: B, sequences a step.
      optimizer: as in `fit`.
      batching: as in `fit`.

    Raises:
      ValueError: an argument out of its range.
    """
    agreement.check_kinds(task, model, trials)
    everywhere = parallel.everywhere(devices)
    settings, mesh = _settle(task, trials, batch_size, optimizer, batching, everywhere)
    layout = parallel.Layout(len(trials.seed), settings.batching, mesh)
    captured = _captured(task, model, settings, trials)
    loop, placed = _loop(task, model, settings, mesh, captured), layout.outline(trials)
    state = layout.outline(jax.eval_shape(loop.begin, placed))
    idle = layout.outline(jax.ShapeDtypeStruct((1,), bool))
    stop = jax.ShapeDtypeStruct((), np.int32)
    return Lowered(loop.begin.lower(placed), loop.run.lower((placed, idle, state), stop))


def _settle(
    task: Task, trials: Trials, batch_size: int, optimizer: str, batching: str, mesh: Mesh
) -> tuple[Settings, Mesh]:
    """Returns what is compiled in, and the devices as trials use them.

    A stream's batch is not shared out: its rows go on from window to window with the model's state.
    """
    _check_counts(batch_size=batch_size)
    optimizers.check_name(optimizer)
    settings = Settings(batch_size, optimizer, parallel.resolve(batching, mesh))
    if isinstance(task, Stream):
        return settings, mesh
    return settings, parallel.shared(mesh, len(trials.seed), batch_size, settings.batching)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value}")


# Many trials. -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _loop(task: Task, model: Model, settings: Settings, mesh: Mesh, captured: str) -> Loop:
    """Returns the compiled loop, the same for equal arguments, so that it is compiled once."""
    del captured  # part of the key: a loop holds the arrays that were captured when it was traced

    def begin_trial(trial):
        return begin(task, model, settings, trial)

    def run(args, stop):
        trial, idle, state = args
        return lax.while_loop(
            lambda state: (state.status == RUNNING) & ~idle & (state.step < stop),
            lambda state: take_step(task, model, settings, mesh, trial, state),
            state,
        )

    # Not vmap on a CPU, by any name: batched QR (orthogonal weights) on several host devices waits
    # for a thread of a pool in which all threads wait for it.
    return Loop(
        begin=parallel.over_trials(begin_trial, parallel.resolve("auto", mesh), mesh),
        run=parallel.over_trials(run, settings.batching, mesh),
    )


def _captured(task: Task, model: Model, settings: Settings, trials: Trials) -> str:
    """Returns a checksum of what `task` and `model.init` take from outside, such as a dataset."""

    def first_step(trial):
        state = begin(task, model, settings, trial)
        _, batch = draw(task, settings, trial, state)
        seen = batch_stats(task, agreement.zero_outputs(task, batch), batch)
        return count_step(task, settings, state, seen), batch.x, batch.mask, batch.reset

    return captures.fingerprint(first_step, jax.tree.map(lambda leaf: leaf[0], trials))


def _start(
    loop: Loop, layout: parallel.Layout, trials: Trials, log: NoLog, begin_from: State | None
) -> tuple[int, State]:
    """Returns the step and state to go on from: the last checkpoint, or the beginning."""
    shapes = jax.eval_shape(loop.begin, trials)
    template = layout.gather(jax.tree.map(_blank, shapes))
    restored = log.restore(template)
    if restored is not None:
        return restored[0], layout.spread(restored[1])
    if begin_from is None:
        return 0, loop.begin(trials)
    _check_begin(begin_from, template)
    running = np.asarray(begin_from.step)[np.asarray(begin_from.status) == RUNNING]
    return int(running.min()) if running.size else 0, layout.spread(begin_from)


def _check_begin(begin_from: State, template: State) -> None:
    """Raises ValueError unless `begin_from` is made as the states of these trials are."""
    given, wanted = (
        {jax.tree_util.keystr(at): (np.shape(leaf), np.asarray(leaf).dtype) for at, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (begin_from, template))
    )
    for name in sorted(given.keys() | wanted.keys()):
        if given.get(name) != wanted.get(name):
            raise ValueError(
                f"begin_from{name} must be {wanted.get(name)} for these trials and this model, "
                f"got {given.get(name)}"
            )


def _fingerprint(state: State) -> int:
    """Returns a checksum of all leaves: what tells one beginning from another."""
    leaves = map(np.asarray, jax.tree.leaves(state))
    return functools.reduce(lambda crc, leaf: zlib.crc32(leaf.tobytes(), crc), leaves, 0)


def _blank(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    return np.zeros(leaf.shape, leaf.dtype)


def _train(
    advance: Callable[[State, np.int32], State],
    layout: parallel.Layout,
    state: State,
    step: int,
    steps: int,
    chunk: int,
    log: NoLog,
    bar: Quiet,
) -> State:
    """Takes all trials to the end, returning to Python about once a second.

    What is recorded does not depend on the clock: only steps that are multiples of `chunk` (and the
    last) are.
    """
    seen, stride = Snapshot.of(layout, state), 1
    while step < steps and seen.running.any():
        boundary = min(steps, step - step % chunk + chunk)
        began, before, step = time.monotonic(), seen, min(boundary, step + stride)
        state = advance(state, np.int32(step))
        seen = Snapshot.of(layout, state)
        seconds = time.monotonic() - began
        stride = int(hosts.each(min(chunk, _paced(stride, seconds)))[0, 0])  # by one clock
        if step == boundary:
            log.progress(seen.records())
            log.curves(step, seen.curves(before, seconds))
        bar.update(*seen.extent(steps))
        last = step == steps or not seen.running.any()
        log.checkpoint(step, functools.partial(layout.gather, state), last)
    return state


def _paced(stride: int, seconds: float) -> int:
    """Returns a stride that comes nearer to taking `PATIENCE` seconds."""
    if seconds > 2 * PATIENCE:
        return max(1, stride // 2)
    return 2 * stride if seconds < PATIENCE / 2 else stride


# Beginning elsewhere. -----------------------------------------------------------------------------


def fresh(
    task: Task, model: Model, params: Any, trials: Trials, *, batch_size: int = 16,
    optimizer: str = "adam",
) -> State:  # fmt: skip
    """Returns R trials before their first step with parameters of one's own, for `begin_from`.

    Args:
      task: the problem.
      model: the network.
      params: leaves [R, ...].
      trials: R settings.
      batch_size: as in `fit`.
      optimizer: as in `fit`.
    """
    agreement.check_kinds(task, model, trials)
    agreement.check_params(params, trials)
    settings = Settings(batch_size, optimizer, "map")
    begin_all = jax.vmap(lambda trial, one: begin_with(task, model, settings, trial, one))
    return jax.tree.map(np.asarray, begin_all(trials, params))


def state_shapes(
    task: Task, model: Model, trials: Trials, *, batch_size: int = 16, optimizer: str = "adam"
) -> State:
    """Returns the shapes and types of R trials' state: what `checkpoints.load` reads them by."""
    settings = Settings(batch_size, optimizer, "map")
    return jax.eval_shape(jax.vmap(lambda trial: begin(task, model, settings, trial)), trials)


def footprint(
    task: Task, model: Model, *, batch_size: int = 16, optimizer: str = "adam",
    batching: str = "auto", places: int = 1,
) -> int:  # fmt: skip
    """Returns the bytes a device needs to train `places` trials, as the compiler plans them.

    Arguments, results and temporaries of the compiled loop, which is not run. With vmap every place
    costs nearly the same; with map the temporaries are those of one trial.
    """
    trials = make_trials(seed=np.arange(places * jax.device_count()))
    settings = {"batch_size": batch_size, "optimizer": optimizer, "batching": batching}
    planned = lower(task, model, trials, jax.devices(), **settings).run.compile()
    sizes: Any = planned.memory_analysis()
    return (
        sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )  # fmt: skip


def _describe(task: Task, model: Model, trials: Trials) -> dict[str, Any]:
    """Returns what a resumed group must have in common with the one begun, in JSON's values."""
    names = {"task": repr(task), "model": re.sub(r" at 0x[0-9a-f]+", "", repr(model))}
    return names | describe_trials(trials)


@functools.lru_cache(maxsize=64)
def _batch_fault(task: Task, settings: Settings, captured: str) -> Callable[..., Array]:
    """Returns f(trial, state), compiled: what is wrong with the batch of the trial's next step."""
    del captured  # part of the key, as that of `_loop`

    def batch_fault(trial, state):
        return divergence.batch_fault(task, draw(task, settings, trial, state)[1])

    return jax.jit(batch_fault)


def _reasons(
    task: Task, settings: Settings, captured: str, trials: Trials, state: State
) -> np.ndarray:
    """Returns why each trial diverged, "" where it did not; warns of batches at fault.

    Batches are looked at after the loop, which costs the loop nothing: the trial stands before the
    step that it failed, and draws the same batch again.
    """
    cursors = trials, state._replace(params=(), optimizer=(), stats=())
    faults = {}
    for i in np.flatnonzero(STATUS[state.status] == "diverged").tolist():
        one = jax.tree.map(lambda leaf, i=i: leaf[i], cursors)
        faults[i] = int(_batch_fault(task, settings, captured)(*one))
    codes = [faults.get(i) or code for i, code in enumerate(state.status.tolist())]
    each = zip(codes, state.step.tolist(), strict=True)
    reasons = [divergence.reason(task, code, step) for code, step in each]
    if blamed := [i for i, fault in faults.items() if fault != RUNNING]:
        told = f"{len(blamed)} of {len(codes)} trials, the first of them trial {blamed[0]}"
        warnings.warn(f"data made {told}, diverge: {reasons[blamed[0]]}", stacklevel=3)
    return np.array(reasons)
