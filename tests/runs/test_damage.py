"""A damaged run directory: a resume leaves the right bytes, or says in one sentence why not."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lstm_jax import fit, make_trials, result_records
from lstm_jax.runs.checkpoints import load
from lstm_jax.runs.directory import GroupLog, RunDirectory
from lstm_jax.runs.records import Damaged
from lstm_jax.training import loop, state_shapes
from tests.toys import Eager, Line, Slope

pytestmark = pytest.mark.usefixtures("standard_promotion")

TRIALS = make_trials(seed=[0, 1], learning_rate=[0.05, 0.01])


def carry_out(run: RunDirectory) -> None:
    """Trains two groups, of which the second goes on from the first."""
    for group, steps in (("a", 8), ("b", 40)):
        if group not in run.finished():
            shapes = state_shapes(Line(), Slope(), TRIALS)
            begin = load(run.state_path("a"), shapes) if group == "b" else None
            asked: Any = dict(chunk=4, begin_from=begin, progress=False, run=run, group=group)
            result = fit(Line(), Slope(), TRIALS, steps, **asked)
            run.finish(group, result_records(TRIALS, result), result.params, result.state)


def left(path: Path) -> dict[str, bytes]:
    """The bytes that a resume must not change."""
    files = [path / "records.jsonl", *path.glob("params/*"), *path.glob("states/*")]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def everything(path: Path) -> dict[str, bytes]:
    """All files but the lock."""
    files = [file for file in path.rglob("*") if file.is_file() and file.name != ".lock"]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


class Stop(BaseException):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    with jax.numpy_dtype_promotion("standard"):
        carry_out(Eager.create(path, {"who": "x", "steps": 40}))
    return left(path)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped in its second group, with two checkpoints of it."""
    path, original, calls = tmp_path_factory.mktemp("stopped"), GroupLog.checkpoint, 0

    def interrupted(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == 12:
            raise Stop
        original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(GroupLog, "checkpoint", interrupted)
        patch.setattr(loop, "PATIENCE", np.inf)  # the same strides on a slow machine
        with pytest.raises(Stop):
            carry_out(Eager.create(path, {"who": "x", "steps": 40}))
    assert sorted(p.name[:3] for p in path.glob("checkpoints/b/*")) == ["24.", "28."]
    assert (path / "records.jsonl").read_bytes().count(b"\n") == 7 + 10 + 2  # a, b saved, b behind
    return path


# Damage is a function of a file's bytes. ----------------------------------------------------------


def lines(change: Callable[[list[bytes]], object]) -> Callable[[bytes], bytes]:
    """Changes a list of lines in place."""

    def apply(content: bytes) -> bytes:
        parts = content.splitlines(keepends=True)
        change(parts)
        return b"".join(parts)

    return apply


def config(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        parts = json.loads(content)
        change(parts)
        return json.dumps(parts).encode()

    return apply


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeroed(content: bytes) -> bytes:
    return bytes(len(content))


def emptied(content: bytes) -> bytes:
    return b""


def torn(content: bytes) -> bytes:
    return content + b'{"kind": "pro'


SPOILED = (flipped, halved, zeroed, emptied)
MENDED = [  # the same bytes come out
    ("records.jsonl", torn),
    ("records.jsonl", lambda c: c + b'{"kind": "progress", "group": "c"}\n'),  # behind all marks
    *(("checkpoints/b/28.*", change) for change in SPOILED),
    *(("checkpoints/b/*", change) for change in (None, *SPOILED)),
    *(("timing.jsonl", change) for change in (None, torn, lambda content: b"5\n\xff")),
    (".lock", None),
    (".lock", lambda content: b"\xff"),
]
CHANGED = "config.json: it was changed; undo the change, or begin a new run"
LACKS = (
    "records.jsonl: it lacks records that .*npz was saved with; restore it from a copy, or delete"
)
REFUSED = [  # with a sentence
    ("records.jsonl", None, LACKS),
    ("records.jsonl", emptied, LACKS),
    ("records.jsonl", lines(lambda parts: parts.__delitem__(slice(-3, None))), LACKS),
    ("records.jsonl", lines(lambda parts: parts.pop(-3)), LACKS),
    ("records.jsonl", lines(lambda parts: parts.append(parts.pop(-3))), LACKS),
    ("records.jsonl", lines(lambda parts: parts.insert(-4, parts[-4])), LACKS),
    ("records.jsonl", lines(lambda parts: parts.pop(6)), LACKS),  # the mark of a
    ("records.jsonl", lines(lambda parts: parts.pop(0)), "the records of group 'a' were changed"),
    ("records.jsonl", lambda c: c.replace(b"\n", b"\r\n"), "records of group 'a' were changed"),
    ("records.jsonl", lambda c: c.replace(b'"step": 4', b'"step": 5'), "of group 'a' were changed"),
    ("records.jsonl", lambda c: c.replace(b'"trials": 2', b'"trials": 3'), "'a' were changed"),
    *(
        ("records.jsonl", lines(lambda parts, text=text: parts.insert(2, text)), words)
        for text, words in (
            (b"5\n", "line 3 is no JSON object"),
            (b"null\n", "line 3 is no JSON object"),
            (b"[" * 99999 + b"\n", "line 3 is no JSON object"),
            (b"\xff\n", "line 3 is no JSON object"),
            (b"{}\n", "line 3 lacks a kind or a group"),
            (b'{"kind": "result", "group": 5}\n', "line 3 lacks a kind or a group"),
        )
    ),
    *(
        (f"{room}/a.npz", change, "a.npz: it is not as its group" if change else "it is missing")
        for room in ("params", "states")
        for change in (None, *SPOILED)
    ),
    ("config.json", None, "holds no run to resume, it has no config.json"),
    *(
        ("config.json", change, "config.json: it cannot be read")
        for change in (emptied, halved, zeroed, lambda content: b"[" * 99999)
    ),
    *(
        ("config.json", change, "config.json: it lacks settings or about")
        for change in (
            config(lambda c: c.pop("settings")),
            config(lambda c: c.pop("about")),
            config(lambda c: c.update(settings=[])),
            lambda content: b"5",
        )
    ),
    ("config.json", config(lambda c: c["settings"].update(steps=41)), CHANGED),
    ("config.json", config(lambda c: c["settings"].update(s=c["settings"].pop("who"))), CHANGED),
    ("config.json", config(lambda c: c["settings"].pop("who")), CHANGED),
    ("config.json", config(lambda c: c.update(sha256=5)), CHANGED),
]


def damage(path: Path, name: str, change: Callable[[bytes], bytes] | None) -> None:
    """Changes the files of a name, or deletes them."""
    for file in path.glob(name):
        if change is None:
            file.unlink()
        else:
            file.write_bytes(change(file.read_bytes()))


@pytest.fixture
def copy(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(("name", "change"), MENDED)
def test_intact_parts_are_enough_for_the_same_bytes(name, change, whole, copy, capsys):
    damage(copy, name, change)
    carry_out(RunDirectory.resume(copy))
    assert left(copy) == whole
    said = capsys.readouterr().err.splitlines()
    assert all("it is not as it was saved; 'b' continues from the one before" in s for s in said)
    spoilt = {"checkpoints/b/28.*": 1, "checkpoints/b/*": 2}.get(name, 0)
    assert len(said) == (spoilt if change else 0)


@pytest.mark.parametrize(("name", "change", "words"), REFUSED)
def test_damage_is_refused_in_one_sentence_and_nothing_is_changed(name, change, words, copy):
    damage(copy, name, change)
    before = everything(copy)
    with pytest.raises(ValueError, match=words) as caught:
        RunDirectory.resume(copy)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)
    assert everything(copy) == before


@pytest.mark.parametrize("name", ["config.json", "records.jsonl", "params/a.npz"])
def test_what_a_killed_write_leaves_is_cleared_away(name, whole, copy):
    stray = copy / f"{name}.123-0123abcd.tmp"
    stray.write_bytes(b"half")
    mine = copy / "mine.tmp"
    mine.write_bytes(b"mine")
    RunDirectory.resume(copy)
    assert mine.exists() and not stray.exists()


@pytest.mark.parametrize("lost", ["records.jsonl", "."])
def test_a_ledger_that_is_taken_away_under_a_run_stops_it(lost, copy, monkeypatch):
    run, original, calls = Eager.resume(copy), GroupLog.progress, 0

    def robbed(self, records):
        nonlocal calls
        calls += 1
        if calls == 2:
            shutil.rmtree(copy) if lost == "." else (copy / lost).unlink()
        original(self, records)

    monkeypatch.setattr(GroupLog, "progress", robbed)
    with pytest.raises((Damaged, FileNotFoundError)):
        carry_out(run)
    assert not (copy / lost).exists()


def test_every_mark_vouches_for_the_files_of_its_group(whole):
    marks = [
        json.loads(r) for r in whole["records.jsonl"].splitlines() if b'"kind": "finished"' in r
    ]
    assert [mark["before"] for mark in marks] == [0, 1]
    for mark in marks:
        files = {f"{room}/{mark['group']}.npz" for room in ("params", "states")}
        assert mark["files"] == {f: hashlib.sha256(whole[f]).hexdigest() for f in files}


def test_a_run_of_an_earlier_version_without_checksums_is_resumed(copy):
    bare = json.dumps({"kind": "finished", "group": "a", "trials": 2}).encode() + b"\n"
    damage(copy, "config.json", config(lambda parts: parts.pop("sha256")))
    damage(copy, "records.jsonl", lines(lambda parts: parts.__setitem__(6, bare)))
    assert RunDirectory.resume(copy).finished() == {"a"}
