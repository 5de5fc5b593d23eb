"""The directory of a run: settings, ledger, checkpoints and results."""

import collections
import contextlib
import os
import reprlib
import shutil
import signal
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lstm_jax.runs import hosts
from lstm_jax.runs.checkpoints import Checkpoints, export, read_note, step_of
from lstm_jax.runs.config import CONFIG, begin_run, read_config
from lstm_jax.runs.curves import Curves
from lstm_jax.runs.ledger import Ledger
from lstm_jax.runs.lock import Lock, lock_run
from lstm_jax.runs.records import Damaged, Record, RecordLog, plain, temporaries


class RunDirectory:
    """A run on disk; a run consists of groups of trials, one call of `fit` each.

        config.json       the settings of the run, and its circumstances (about)
        records.jsonl     the ledger: reports are made from it alone
        params/*.npz      the final parameters of each finished group
        states/*.npz      the final training state of groups from which other groups continue
        checkpoints/      the checkpoints of unfinished groups
        tensorboard/      curves
        timing.jsonl      seconds; the ledger has none, so that a resumed run has the same bytes
        .lock             locked while a process uses the run, with the name of the process

    Make one with `create` or `resume`, which lock it for this process while the object lives. A run
    that was killed at any moment and resumed leaves the same bytes in records.jsonl and params/ as
    an uninterrupted run, on the same device and versions.

    Several processes make the same calls. Process 0 alone reads and writes the directory, and sends
    its results and exceptions to the others.

    Attributes:
      path: the directory.
      settings: the settings of the run, as in config.json.
      records: the ledger, in process 0; `read` returns it in all processes.
      save_seconds: least time between two checkpoints.
    """

    save_seconds = 15.0

    def __init__(self, path: str | os.PathLike):
        self.path = hosts.lead(lambda: Path(path).absolute())
        self.settings = hosts.lead(lambda: read_config(self.path))["settings"]
        self.records = Ledger(self.path / "records.jsonl")
        self._lock: Lock | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        settings: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> "RunDirectory":
        """Starts a run: makes the directory and writes config.json.

        Args:
          path: the directory.
          settings: JSON values that a resume must not change.
          about: other JSON values to record, such as versions, device and revision.

        Raises:
          ValueError: the directory holds a run, another process uses it, or it cannot be written.
        """
        held: list[Lock] = []  # in process 0
        given = settings or {}, about or {}
        hosts.lead(lambda: held.append(begin_run(Path(path).absolute(), *given)))
        run = cls(path)
        run._lock = held[0] if held else None
        return run

    @classmethod
    def resume(
        cls, path: str | os.PathLike, settings: Mapping[str, Any] | None = None
    ) -> "RunDirectory":
        """Opens an existing run; the given settings must equal those of the run.

        An error changes nothing on disk.

        Raises:
          ValueError: the directory has no run, a setting differs, or another process uses the run.
          Damaged: a file of the run has changed since it was written.
        """
        run = cls(path)
        asked = run.settings | plain(settings or {})
        _refuse_difference(asked, run.settings, f"{run.path / CONFIG}")
        hosts.lead(run._reopen)
        return run

    def read(self) -> list[Record]:
        """Returns all records in order."""
        return hosts.lead(self.records.read)

    def finished(self) -> set[str]:
        """Returns the groups with results in the ledger."""
        return hosts.lead(self._finished)

    @contextlib.contextmanager
    def open_group(self, name: str, settings: Mapping[str, Any]) -> Iterator["GroupLog"]:
        """Opens a group for training; waits at the end until everything is on disk.

        Raises:
          ValueError: the group is finished, or its name is empty.
        """
        if not name.strip("."):
            raise ValueError(f"group must be a name, got {name!r}")
        hosts.lead(lambda: self._refuse_finished(name))
        with _sigterm() as came:
            log = GroupLog(self, name, settings, came)
            try:
                yield log
            except Preempted:
                hosts.lead(log.close)
                raise
            except BaseException:  # perhaps in this process only
                log.close()
                raise
            hosts.lead(log.close)

    def finish(
        self, group: str, results: Iterable[Mapping[str, Any]], params: Any, state: Any = None
    ) -> None:
        """Appends a group's results to the ledger, exports its parameters, deletes its checkpoints.

        A given state is exported, too, for a group that continues from it.

        Raises:
          ValueError: the group is finished.
        """
        results = [{"kind": "result", "group": group, **result} for result in results]
        hosts.lead(lambda: self._finish(group, results, params, state))

    def _finish(self, group: str, results: list[Record], params: Any, state: Any) -> None:
        self._refuse_finished(group)
        left = {self.params_path(group): params}
        if state is not None:
            left[self.state_path(group)] = state
        files = {}
        for path, tree in left.items():
            path.parent.mkdir(exist_ok=True)
            files[path.relative_to(self.path).as_posix()] = export(path, tree)
        self.records.finish(group, results, files)
        shutil.rmtree(self.room("checkpoints", group), ignore_errors=True)

    def params_path(self, group: str) -> Path:
        """Returns the npz file of a finished group's parameters, for `checkpoints.load`."""
        return self.room("params", group).with_name(f"{_file_name(group)}.npz")

    def state_path(self, group: str) -> Path:
        """Returns the npz file of a finished group's state, for `checkpoints.load`."""
        return self.room("states", group).with_name(f"{_file_name(group)}.npz")

    def _finished(self) -> set[str]:
        return set(self.records.finished())

    def _reopen(self) -> None:
        """Locks the run, checks all files that a resume reads, and removes leftovers of a kill."""
        self._lock = lock_run(self.path)
        self.records.check(self.path)
        finished = self._finished()
        flying = {urllib.parse.unquote(p.name) for p in self.path.glob("checkpoints/*")} - finished
        saved = {group: self.checkpoint(group) for group in flying}
        written = {group: found[1]["ledger"]["written"] for group, found in saved.items() if found}
        self._tidy(finished, written)

    def _tidy(self, finished: set[str], written: Mapping[str, int]) -> None:
        """Removes records after checkpoints, checkpoints of finished groups, and partial files.

        An unfinished group keeps the records that were `written` at its last checkpoint.
        """
        seen = collections.Counter()

        def wanted(record: Record) -> bool:
            group = record["group"]
            seen[group] += 1
            return group in finished or seen[group] <= written.get(group, 0)

        self.records.keep(wanted)
        for group in finished:
            shutil.rmtree(self.room("checkpoints", group), ignore_errors=True)
        rooms = [self.path / room for room in ("params", "states", "figures")]
        for room in (self.path, *rooms, *self.path.glob("checkpoints/*")):
            for path in temporaries(room):
                path.unlink()

    def checkpoint(
        self, group: str, note: Callable[[str], None] = lambda line: None
    ) -> tuple[Path, Record] | None:
        """Returns a group's newest intact checkpoint and its note, or None.

        `note` gets a line about each damaged checkpoint, which is skipped.

        Raises:
          Damaged: the ledger lacks a record that it had when the checkpoint was saved.
        """
        room = self.room("checkpoints", group)
        for path in Checkpoints(room).paths():
            try:
                found = read_note(path)
            except Damaged as damaged:
                note(f"{path}: {damaged.fault}; {group!r} continues from the one before, if any")
                continue
            if not self.records.holds(group, found["ledger"]):
                fault = f"it lacks records that {path} was saved with"
                remedy = f"restore it from a copy, or delete {room} to train {group!r} again"
                raise Damaged(self.records.path, fault, remedy)
            return path, found
        return None

    def _refuse_finished(self, group: str) -> None:
        if group in self._finished():
            raise ValueError(f"group {group!r} is finished, its results are in {self.records.path}")

    def room(self, room: str, group: str) -> Path:
        """Returns the path of a group in checkpoints/, tensorboard/, params/ or states/."""
        return self.path / room / _file_name(group)


class NoLog:
    """The log of `fit` without a run directory: it writes nothing."""

    def restore(self, template: Any) -> tuple[int, Any] | None:
        """Returns the step and state to continue from; None for a new group."""

    def progress(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends progress records to the ledger."""

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each named TensorBoard curve."""

    def checkpoint(self, step: int, state: Callable[[], Any], last: bool) -> None:
        """Saves a checkpoint if one is due, or if it is the last."""


class GroupLog(NoLog):
    """The log of `fit` for one group, on the disk of process 0."""

    def __init__(
        self,
        run: RunDirectory,
        name: str,
        settings: Mapping[str, Any],
        preempted: Callable[[], bool],
    ):
        self._run, self._name, self._preempted = run, name, preempted
        self._settings = plain(settings)
        self._opened_at = self._saved_at = time.monotonic()
        self._checkpoints = Checkpoints(run.room("checkpoints", name))
        self._curves: Curves | None = None

    def restore(self, template: Any) -> tuple[int, Any] | None:
        """Returns the step and state of the newest checkpoint, and rewinds the ledger to it.

        Raises:
          ValueError: the group started with other settings.
          Damaged: the ledger lacks a record that it had when the checkpoint was saved.
        """
        return hosts.lead(lambda: self._restore(template))

    def _restore(self, template: Any) -> tuple[int, Any] | None:
        found = self._run.checkpoint(self._name, _note)
        step, restored, written = 0, None, 0
        if found is not None:
            path, note = found
            _refuse_difference(self._settings, note["settings"], f"group {self._name!r}")
            step, written = step_of(path), note["ledger"]["written"]
            restored = step, self._checkpoints.restore(path, template)
        self._run.records.rewind(self._name, written)
        self._curves = Curves(self._run.room("tensorboard", self._name), step)
        return restored

    def progress(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends progress records to the ledger."""
        records = [{"kind": "progress", "group": self._name, **record} for record in records]
        hosts.lead(lambda: self._run.records.append(records))

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each named TensorBoard curve."""
        if self._curves is not None:  # in process 0
            self._curves.add(step, values)

    def checkpoint(self, step: int, state: Callable[[], Any], last: bool) -> None:
        """Saves a checkpoint in the background: the last, at intervals, and on SIGTERM.

        Raises:
          Preempted: SIGTERM arrived at this process or another.
        """
        due = time.monotonic() - self._saved_at >= self._run.save_seconds
        flags = hosts.each(self._preempted(), due)
        stopping, due = bool(flags[:, 0].any()), bool(flags[0, 1])
        if due or last or stopping:
            gathered = state()
            hosts.lead(lambda: self._save(step, gathered))
            self._saved_at = time.monotonic()
        if stopping:
            raise Preempted(f"stopped by SIGTERM at step {step} of {self._name!r}, all saved")

    def _save(self, step: int, state: Any) -> None:
        note = {"settings": self._settings, "ledger": self._run.records.note(self._name)}
        self._checkpoints.save(step, state, note)
        if self._curves is not None:
            self._curves.flush()

    def close(self) -> None:
        """Waits until everything is on the disk of process 0, and records the seconds."""
        if not hosts.leads():
            return
        if self._curves is not None:
            self._curves.close()
        seconds = round(time.monotonic() - self._opened_at, 3)
        with contextlib.suppress(OSError):  # timing is optional
            timing = RecordLog(self._run.path / "timing.jsonl")
            timing.append([{"group": self._name, "seconds": seconds}])
        self._checkpoints.close()


class Preempted(Exception):
    """Training stopped at SIGTERM; everything is saved."""


def _note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether SIGTERM arrived; False outside the main thread."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def stop(*_: Any) -> None:
        came.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, previous)


def _refuse_difference(asked: Mapping[str, Any], stored: Mapping[str, Any], where: str) -> None:
    """Raises ValueError with the first key whose values differ."""
    for key in sorted(asked.keys() | stored.keys()):
        new, old = asked.get(key), stored.get(key)
        if new != old:
            new, old = reprlib.repr(new), reprlib.repr(old)
            raise ValueError(f"cannot resume with {key} = {new}: {where} says {old}")


def _file_name(group: str) -> str:
    """Returns a file name for a group name, with slashes escaped."""
    return urllib.parse.quote(group, safe=" =,+()")
