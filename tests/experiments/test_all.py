"""all: experiments one after another, told together; stopped and gone on with; refused by name."""

import importlib
import json
import os
import signal
import sys
import threading
import types
from pathlib import Path

import pytest

from experiments import all as everything
from experiments.all import ORDER, All
from experiments.common import runner
from experiments.common.plan import Experiment
from experiments.common.report import Report
from lstm_jax import search
from lstm_jax.report.claims import FAILS, REPRODUCES, TOO_SMALL, Claim
from lstm_jax.runs.directory import RunDirectory
from scripts._experiments import FOLDER, experiments
from tests.experiments.common.test_runner import TOY
from tests.processes import wait_until

pytestmark = pytest.mark.usefixtures("standard_promotion")

NAMES = ORDER[:2]
VERDICTS: dict[str, str] = dict(zip(NAMES, (REPRODUCES, FAILS), strict=True))


def toy(name: str) -> Experiment:
    """The toy experiment under another name, with a claim of its own."""
    claim = Claim(f"{name} | learns", "1", "-", VERDICTS[name])
    return TOY._replace(name=name, doc=f"A toy, {name}.\n\nMore.", claims=lambda c, t: [claim])


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """Toys in place of experiments, in this process; returns what was called."""
    called = []

    def call(name, arguments):
        called.append((name, *arguments))
        return runner.main(toy(name), [name, *arguments])

    monkeypatch.setattr(runner, "start", lambda platform: None)
    monkeypatch.setattr(everything, "load", toy)
    monkeypatch.setattr(everything, "call", call)
    return called


def run(*arguments: object) -> int:
    return everything.main(["all", f"--only={','.join(reversed(NAMES))}", *map(str, arguments)])


def test_every_experiment_but_those_on_own_files_is_in_the_order_of_cost():
    assert sorted([*ORDER, "all", "predict", "train"]) == sorted(experiments(FOLDER))


@pytest.mark.parametrize("name", sorted(experiments(FOLDER)))
def test_a_docstring_is_short_and_the_method_has_a_section(name):
    told = importlib.import_module(f"experiments.{name}").__doc__ or ""
    heads = [line.split(":")[0] for line in told.splitlines()]
    assert len(heads) <= 25 and {"Command", "Cost"} <= set(heads), name
    if name != "all":
        page = (FOLDER.parent / "docs/experiments.md").read_text(encoding="utf-8")
        assert "Expect" in heads and told.rstrip().endswith(f"docs/experiments.md#{name}"), name
        assert f"\n## {name}\n" in page, name


def test_at_the_quick_scale_nothing_is_judged(tmp_path, toys, capsys):
    assert run(f"--workdir={tmp_path / 'run'}", "--quick") == 0
    pages = [(tmp_path / "run" / place / "report.html").read_text() for place in (".", NAMES[0])]
    for told in (capsys.readouterr().out, *pages):
        assert TOO_SMALL in told and not any(verdict in told for verdict in (REPRODUCES, FAILS))


def test_all_are_run_in_order_and_told_from_their_records(tmp_path, toys):
    folder, copy = tmp_path / "run", tmp_path / "copy.md"
    assert run(f"--workdir={folder}", "--scale=small", f"--results={copy}", "--platform=cpu") == 0
    assert [name for name, *_ in toys] == list(NAMES)
    assert all({"--scale=small", "--platform=cpu"} <= set(arguments) for _, *arguments in toys)
    text = (folder / "results.md").read_text()
    assert copy.read_text() == text
    for name, verdict in VERDICTS.items():
        assert f"| {name} \\| learns | 1 | - | {verdict} |" in text
        assert f"`scripts/run {name} --scale=small`" in text and f"A toy, {name}." in text
    assert text.count("| together |") == 1
    page = (folder / "report.html").read_text()
    assert page.count("<figure>") == len(NAMES) and "the losses" in page
    assert page.count("rate</th>") == len(NAMES), "the tables"
    before = (folder / "results.md").read_bytes()
    assert everything.main(["all", f"--resume={folder}"]) == 0
    assert len(toys) == len(NAMES), "what is done is not run again"
    assert (folder / "results.md").read_bytes() == before


def test_what_was_stopped_goes_on_and_is_told_as_if_it_was_not(tmp_path, toys, monkeypatch, capsys):
    folder, train = tmp_path / "run", search.train

    def interrupted(group, run, batching):
        if len(toys) == 2 and group.name == "second":
            raise KeyboardInterrupt
        train(group, run, batching=batching)

    with monkeypatch.context() as patch:
        patch.setattr(search, "train", interrupted)
        assert run(f"--workdir={folder}") == 130
    assert f"--resume={folder}" in capsys.readouterr().err
    text = (folder / "results.md").read_text()
    assert f"## {NAMES[0]}" in text and f"## {NAMES[1]}" not in text, "only what is done"
    assert f"Not finished, and not on this page: {NAMES[1]}." in text
    assert everything.main(["all", f"--resume={folder}"]) == 0
    assert [name for name, *_ in toys] == [*NAMES, NAMES[1]]
    assert toys[-1][1:] == (f"--resume={folder / NAMES[1]}",)
    text = (folder / "results.md").read_text()
    assert all(f"## {name}" in text for name in NAMES) and "Not finished" not in text


@pytest.mark.parametrize("code", [130, 143])
def test_whoever_is_told_to_stop_stops_all(code, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(everything, "call", lambda name, _: called.append(name) or code)
    assert run(f"--workdir={tmp_path / 'run'}") == code
    assert called == [NAMES[0]]


NUMBERS = [{"network": "x", "score": 1}]


def test_costs_are_those_of_all_parts_in_minutes_and_places_are_told_apart(tmp_path):
    spent = [("a", 60, 130), ("b", 240, 0), ("a", 120, 0), ("c", 30, 1)]
    lines = [json.dumps({"experiment": n, "seconds": s, "code": c}) + "\n" for n, s, c in spent]
    (tmp_path / "costs.jsonl").write_text("".join(lines))
    costs = everything.done(tmp_path)
    assert costs == {"a": 180, "b": 240}

    def told(name, device, revision=None):
        about = {"devices": [device] * 2, "versions": {"jax": "1", "flax": "2"}}
        about |= {"revision": revision, "uncommitted changes": revision is not None}
        one = types.SimpleNamespace(name=name, doc="What.\n\nMore.")
        made = Report(one, {"about": about}, [], [], NUMBERS, [])  # pyright: ignore
        return everything.Finished(made, costs[name])

    text = everything.results("small", [told("a", "H200"), told("b", "H200", "12ab" * 10)])
    assert text.count("no claim of its own.\n\n| network | score |\n| --- | --- |\n| x | 1 |") == 2
    lines = "| a | 3.0 | no checkout |", "| b | 4.0 | 12ab12ab12, with changes |"
    assert "\n".join([*lines, "| together | 7.0 |  |"]) in text
    assert "on 2 devices (H200), jax 1, flax 2, by" in text
    text = everything.where([told("a", "H200"), told("b", "TPU")])
    two = ["- 2 devices (H200), jax 1, flax 2: a", "- 2 devices (TPU), jax 1, flax 2: b"]
    assert text.splitlines() == two


def test_one_that_fails_is_named_and_the_others_run(tmp_path, monkeypatch, capsys):
    call = everything.call
    monkeypatch.setattr(
        everything, "call", lambda name, given: 1 if name == NAMES[0] else call(name, given)
    )
    folder = tmp_path / "run"
    assert run(f"--workdir={folder}") == 1
    assert f"{NAMES[0]} failed with exit code 1" in capsys.readouterr().err
    text = (folder / "results.md").read_text()
    assert f"## {NAMES[1]}" in text and f"## {NAMES[0]}" not in text


@pytest.mark.parametrize(
    ("flag", "right"),
    [
        ("--only=odysee", f"need one of {', '.join(ORDER)}"),
        ("--platform=abacus", "need one of auto, cpu, gpu, tpu"),
        ("--scale=huge", "quick"),
        ("--steps=3", "steps"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(flag, right, tmp_path, capsys):
    folder = tmp_path / "run"
    assert everything.main(["all", flag, f"--workdir={folder}"]) == 2
    told = capsys.readouterr().err
    assert right in told and told.count("\n") == 1 and not folder.exists()


def test_a_directory_in_use_and_the_resume_of_nothing_or_otherwise_are_refused(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    RunDirectory.create(folder, {"experiment": "toy", "scale": "small"})
    assert run(f"--workdir={folder}") == 2
    assert everything.main(["all", f"--resume={folder}"]) == 2
    assert everything.main(["all", f"--resume={tmp_path / 'none'}"]) == 2
    asked = {"experiment": "all", "scale": "small", "only": list(ORDER)}
    RunDirectory.create(tmp_path / "all", asked)
    assert everything.main(["all", f"--resume={tmp_path / 'all'}", "--quick"]) == 2
    lines = capsys.readouterr().err.splitlines()
    words = ("is not empty|need a new", "not of toy", "holds no run", "started with small")
    assert len(lines) == 4
    for line, word in zip(lines, words, strict=True):
        assert any(part in line for part in word.split("|")), line


def test_help_names_the_flags(capsys):
    assert everything.main(["all", "--help"]) == 0
    assert "--only" in capsys.readouterr().out
    assert All().only == ORDER and Path(everything.__file__).stem == "all"


CHILD = """
import pathlib, signal, sys, time

def stop(*_):
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""


def test_sigterm_ends_the_experiment_first(tmp_path):
    def terminate():
        wait_until((tmp_path / "ready").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    def alone(*_):
        raise AssertionError("nobody passes SIGTERM on")

    before = signal.signal(signal.SIGTERM, alone)
    try:
        threading.Thread(target=terminate).start()
        command = [sys.executable, "-c", CHILD, str(tmp_path)]
        assert everything.run_process(command, os.environ) == 143
        assert signal.getsignal(signal.SIGTERM) is alone
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_of_an_experiment_is_that_of_a_shell(end, code):
    command = [sys.executable, "-c", f"import os, sys; {end}"]
    assert everything.run_process(command, os.environ) == code


def test_all_refuses_a_file_and_stops_at_damage_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(f"--workdir={tmp_path / 'file'}") == 2
    assert run(f"--workdir={tmp_path / 'file' / 'run'}") == 2
    folder = tmp_path / "run"
    RunDirectory.create(folder, {"experiment": "all", "scale": "small", "only": [NAMES[0]]})
    (folder / "costs.jsonl").write_text("null\n")
    assert everything.main(["all", f"--resume={folder}"]) == 1
    done = {"experiment": NAMES[0], "seconds": 1, "code": 0}
    (folder / "costs.jsonl").write_text(json.dumps(done) + "\n")
    assert everything.main(["all", f"--resume={folder}"]) == 1
    said = capsys.readouterr().err.splitlines()
    words = ("is a file", "Not a directory", "line 1 is no JSON object")
    words += (f"{folder / NAMES[0]}: holds no run",)
    assert len(said) == 4 and all(w in line for w, line in zip(words, said, strict=True)), said
