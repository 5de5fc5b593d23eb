"""The compiled loop: a batch of training runs as one program, and its way through the steps."""

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

from lstm_jax.checks import check_size
from lstm_jax.runs import hosts
from lstm_jax.runs.directory import NoLog
from lstm_jax.runs.progress import Quiet
from lstm_jax.tasks.base import Task
from lstm_jax.training import agreement, captures, divergence, feeds, optimizers, parallel
from lstm_jax.training.divergence import RUNNING, STATUS
from lstm_jax.training.evaluation import SEQUENCES, Asked
from lstm_jax.training.results import Snapshot
from lstm_jax.training.step import (
    Settings,
    State,
    batch_stats,
    begin,
    count_step,
    draw,
    take_step,
)
from lstm_jax.training.trials import Trials, describe_trials
from lstm_jax.training.validation import validate
from lstm_jax.types import Array, Model

PATIENCE = 1.0  # seconds between two looks at the clock and for SIGTERM, about


class Program(NamedTuple):
    """What is compiled, each for R trials.

    Attributes:
      begin: begin(trials, arrays) gives a State.
      run: run((trials, idle, state), stop, arrays) gives the State at step `stop`.
      validate: validate((trials, state), data) gives the State after validation.
    """

    begin: jax.stages.Wrapped
    run: jax.stages.Wrapped
    validate: jax.stages.Wrapped


class Lowered(NamedTuple):
    """What `fit` compiles: the program that begins the trials, and the one that trains them."""

    begin: jax.stages.Lowered
    run: jax.stages.Lowered


class Job:
    """R trials of one task and model, and the devices that train them.

    Attributes:
      task: the problem.
      model: the network, with the task's sizes.
      trials: R settings.
      settings: what else is compiled in.
      layout: where the trials lie.
      program: the compiled functions, the same for equal jobs.
    """

    def __init__(
        self,
        task: Task,
        model: Model,
        trials: Trials,
        settings: Settings,
        devices: parallel.Devices | None = None,
        source: feeds.Source | None = None,
    ):
        agreement.check_kinds(task, model, trials)
        check_size("batch_size", settings.batch_size)
        optimizers.check(settings.optimizer)
        count, mesh = len(trials.seed), parallel.everywhere(devices)
        batching = parallel.resolve(settings.batching, mesh)
        mesh = parallel.shared(mesh, count, settings.batch_size, settings.batching)
        settings = settings._replace(batching=batching)
        self.task, self.model = task, agreement.sized(task, model)
        self.trials, self.settings = trials, settings
        self.layout = parallel.Layout(count, settings.batching, mesh)
        self._source = source
        self._ahead = None if source is None else feeds.Ahead(self.layout, task, source, settings)
        self._first = task.arrays() if self._ahead is None else self._ahead.first
        self._captured = _captured(task, self.model, settings, trials, self._first)
        asked = _asked(task, settings)
        self.program = _program(task.static, self.model, settings, asked, mesh, self._captured)

    def describe(self) -> dict[str, Any]:
        """Returns what a resumed group must have in common with the one begun, in JSON's values."""
        settings = self.settings._asdict()
        settings = {name: value for name, value in settings.items() if value not in (None, False)}
        return {
            "task": repr(self.task),
            "model": re.sub(r" at 0x[0-9a-f]+", "", repr(self.model)),
            "data": self.task.digest,
            **({"source": feeds.digest_of(self._source)} if self._source is not None else {}),
            **describe_trials(self.trials),
            **settings,
            "optimizer": optimizers.describe(self.settings.optimizer),
        }

    def train(
        self,
        steps: int,
        chunk: int,
        log: NoLog,
        bar: Callable[[int], Quiet],
        begin_from: State | None = None,
    ) -> State:
        """Takes all trials to the end; returns their state, NumPy leaves [R, ...].

        `bar` makes the progress bar, of the trial-steps done before. Other arguments are those of
        `fit`.
        """
        placed, idle = self.layout.spread(self.trials), self.layout.idle
        whole = feeds.Whole(self.layout, self.task.arrays())
        feed = self._ahead or whole
        step, state = self._start(placed, feed.first, log, begin_from)
        data = self._validation(whole.first)

        def advance(state: State, step: int, stop: int) -> State:
            while step < stop:
                arrays, end = feed.at(step)
                step = min(stop, end)
                state = self.program.run((placed, idle, state), np.int32(step), arrays)
            return state

        def check(state: State) -> State:
            return self.program.validate((placed, state), data)

        done = int(self._snapshot(state).step.sum())
        with contextlib.closing(feed), contextlib.closing(bar(done)) as shown:
            state = self._train(advance, check, state, step, steps, chunk, log, shown)
        return self.layout.gather(state)

    def _validation(self, arrays: Any) -> Any:
        """Returns what validation reads, on the devices; `arrays` are there already."""
        if not self.settings.validated:
            return ()
        data = self.task.evaluated("validation", arrays)
        return data if data is arrays else self.layout.share(data)

    def _start(
        self, placed: Trials, arrays: Any, log: NoLog, begin_from: State | None
    ) -> tuple[int, State]:
        """Returns the step and state to go on from: the last checkpoint, or the beginning."""
        shapes = jax.eval_shape(self.program.begin, placed, arrays)
        template = self.layout.gather(jax.tree.map(_blank, shapes))
        restored = log.restore(template)
        if restored is not None:
            return restored[0], self.layout.spread(restored[1])
        if begin_from is None:
            return 0, self.program.begin(placed, arrays)
        _check_begin(begin_from, template)
        running = np.asarray(begin_from.step)[np.asarray(begin_from.status) == RUNNING]
        return int(running.min()) if running.size else 0, self.layout.spread(begin_from)

    def _train(
        self,
        advance: Callable[[State, int, int], State],
        check: Callable[[State], State],
        state: State,
        step: int,
        steps: int,
        chunk: int,
        log: NoLog,
        bar: Quiet,
    ) -> State:
        """Returns to Python about once a second; what is recorded does not depend on the clock.

        Only steps that are multiples of `chunk` (and the last) are recorded.
        """
        rules, seen, stride = self.settings.validated, self._snapshot(state), 1
        every = [chunk, rules.every] if rules else [chunk]
        while step < steps and seen.running.any():
            boundary = min(steps, *(step - step % n + n for n in every))
            began, before, stop = time.monotonic(), seen, min(boundary, step + stride)
            state, step = advance(state, step, stop), stop
            seen = self._snapshot(state)
            last = step == steps or not seen.running.any()
            if rules and (step % rules.every == 0 or last):
                state = check(state)
                seen = self._snapshot(state)
                last = last or not seen.running.any()
            seconds = time.monotonic() - began
            stride = int(hosts.each(min(chunk, _paced(stride, seconds)))[0, 0])  # by one clock
            if step % chunk == 0 or step == steps:
                log.progress(seen.records())
                log.curves(step, seen.curves(before, seconds))
            bar.update(*seen.extent(steps))
            log.checkpoint(step, functools.partial(self.layout.gather, state), last)
        return state

    def _arrays_of(self, step: int) -> Any:
        """Returns the arrays that hold the batch of an update."""
        return self._first if self._ahead is None else self._ahead.block(step)

    def _snapshot(self, state: State) -> Snapshot:
        return Snapshot.of(self.layout, state)

    def lower(self) -> Lowered:
        """Returns what `train` runs, traced and lowered, on devices that need not be here."""
        placed = self.layout.outline(self.trials)
        arrays = self.layout.outline_whole(self._first)
        state = self.layout.outline(jax.eval_shape(self.program.begin, placed, arrays))
        idle = self.layout.outline(jax.ShapeDtypeStruct((1,), bool))
        stop = jax.ShapeDtypeStruct((), np.int32)
        return Lowered(
            self.program.begin.lower(placed, arrays),
            self.program.run.lower((placed, idle, state), stop, arrays),
        )

    def reasons(self, state: State) -> np.ndarray:
        """Returns why each trial diverged, "" where it did not; warns of batches at fault.

        Batches are looked at after the loop, which costs the loop nothing: the trial stands before
        the step that it failed, and draws the same batch again.
        """
        cursors = (
            self.trials,
            state._replace(params=(), optimizer=(), stats=(), best=(), average=()),
        )
        diverged = np.flatnonzero(STATUS[state.status] == "diverged").tolist()
        fault = _batch_fault(self.task.static, self.settings, self._captured)
        faults = {}
        for i in diverged:
            one = jax.tree.map(lambda leaf, i=i: leaf[i], cursors)
            faults[i] = int(fault(*one, self._arrays_of(int(state.step[i]))))
        codes = [faults.get(i) or code for i, code in enumerate(state.status.tolist())]
        each = zip(codes, state.step.tolist(), strict=True)
        reasons = [divergence.reason(self.task, code, step) for code, step in each]
        if blamed := [i for i, fault in faults.items() if fault != RUNNING]:
            told = f"{len(blamed)} of {len(codes)} trials, the first of them trial {blamed[0]}"
            warnings.warn(f"data made {told}, diverge: {reasons[blamed[0]]}", stacklevel=3)
        return np.array(reasons)


def fingerprint(state: State) -> int:
    """Returns a checksum of all leaves: what tells one beginning from another."""
    leaves = map(np.asarray, jax.tree.leaves(state))
    return functools.reduce(lambda crc, leaf: zlib.crc32(leaf.tobytes(), crc), leaves, 0)


@functools.lru_cache(maxsize=64)
def _program(
    task: Task, model: Model, settings: Settings, asked: Asked, mesh: Mesh, captured: str
) -> Program:
    """Returns the compiled functions, the same for equal arguments, so that they compile once."""
    del captured  # part of the key: a loop holds the arrays that were captured when it was traced

    def begin_trial(trial, arrays):
        return begin(task, model, settings, trial, arrays)

    def run(args, stop, arrays):
        trial, idle, state = args
        return lax.while_loop(
            lambda state: (state.status == RUNNING) & ~idle & (state.step < stop),
            lambda state: take_step(task, model, settings, mesh, trial, state, arrays),
            state,
        )

    def validated(args, data):
        trial, state = args
        return validate(task, model, settings, asked, trial, state, data)

    # Not vmap on a CPU, by any name: batched QR (orthogonal weights) on several host devices waits
    # for a thread of a pool in which all threads wait for it.
    return Program(
        begin=parallel.over_trials(begin_trial, parallel.resolve("auto", mesh), mesh),
        run=parallel.over_trials(run, settings.batching, mesh),
        validate=parallel.over_trials(validated, settings.batching, mesh),
    )


def _asked(task: Task, settings: Settings) -> Asked:
    """Returns which sequences validation asks."""
    rules = settings.validated
    count = task.split_size("validation") if rules else None
    return Asked("validation", count, SEQUENCES)


def _captured(task: Task, model: Model, settings: Settings, trials: Trials, arrays: Any) -> str:
    """Returns a checksum of what `task` and `model.init` take from outside, such as a dataset."""
    static = task.static

    def first_step(trial, arrays):
        state = begin(static, model, settings, trial, arrays)
        _, batch = draw(static, settings, trial, state, arrays)
        agreement.check_batch(static, batch, settings.batch_size)
        seen = batch_stats(static, state.stats.memory, agreement.zero_outputs(static, batch), batch)
        return count_step(static, settings, state, seen), batch.x, batch.mask, batch.reset

    first = jax.tree.map(lambda leaf: leaf[0], trials)
    return captures.fingerprint(first_step, first, feeds.shapes(arrays))


@functools.lru_cache(maxsize=64)
def _batch_fault(task: Task, settings: Settings, captured: str) -> Callable[..., Array]:
    """Returns f(trial, state, arrays), compiled: what is wrong with the trial's next batch."""
    del captured  # part of the key, as that of `_program`

    def batch_fault(trial, state, arrays):
        return divergence.batch_fault(task, draw(task, settings, trial, state, arrays)[1])

    return jax.jit(batch_fault)


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


def _blank(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    return np.zeros(leaf.shape, leaf.dtype)


def _paced(stride: int, seconds: float) -> int:
    """Returns a stride that comes nearer to taking `PATIENCE` seconds."""
    if seconds > 2 * PATIENCE:
        return max(1, stride // 2)
    return 2 * stride if seconds < PATIENCE / 2 else stride
