"""Absurd command lines: one sentence that names the flag, exit code 2, and nothing on the disk."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from experiments import all as everything
from experiments.common import estimate, runner
from tests.processes import run
from tests.products import mostly_slow

ROOT = Path(__file__).parents[2]
HERE = 16_000_000_000  # bytes of memory
NINES = "9" * 30

LINES = [
    # counts beyond their bounds
    ("gates", "--seeds=1000000000"),
    ("gates", f"--steps={NINES}"),
    ("gates", f"--seed={NINES}"),
    ("gates", "--hidden=1_000_000_000_000"),
    ("gates", "--batch_size=1000000000000"),
    ("gates", "--lag=1000000000000"),
    ("long_memory", "--lags=1000000000000"),
    ("long_memory", f"--tuning_seeds={NINES}"),
    ("long_memory", f"--digits_steps={NINES}"),
    ("formal", f"--questions={NINES}0"),
    ("formal", f"--test_lengths={NINES}"),
    ("formal", f"--test_longest={NINES}"),
    ("gers", f"--tested={NINES}"),
    ("gers", f"--horizon={NINES}0"),
    ("gradient_flow", f"--lag={NINES}"),
    ("hmm", "--states=1000000000"),
    ("hmm", "--restarts=1000000000"),
    ("hmm", "--bits=1000000000"),
    ("memory_rl", "--lengths=1000000000"),
    ("memory_rl", "--batch_size=3"),
    ("odyssey", "--seeds=1000000000"),
    ("odyssey", "--pixels=1000000000"),
    ("robustness", "--seeds=1000000000"),
    ("classic", "--guesses=1000000000"),
    ("classic", "--budget=1e300"),
    ("classic", "--budget=1e-300"),
    ("halving", "--trials=1000000000"),
    ("halving", "--rungs=1000000000"),
    ("halving", "--eta=1000000000"),
    ("halving", "--budget=1000000000"),
    ("sweep", "--trials=1000000000"),
    ("sweep", "--batch=1000000000"),
    ("sweep", "--best=1000000000"),
    ("sweep", "--depth=1000000"),
    ("sweep", "--points=1000000000"),
    ("sweep", "--rungs=1000000000 --strategy=halving"),
    # rates that no float32 holds
    ("long_memory", "--learning_rates=1e39"),
    ("gates", "--learning_rate=1e-300"),
    ("gates", "--learning_rate=nan"),
    # each in its bounds, too many together
    ("sweep", "--points=10000 --strategy=grid"),
    ("sweep", "--trials=20000 --tuning_seeds=10000"),
    ("sweep", "--best=20000 --trials=20000 --seeds=10000"),
    ("halving", "--trials=20000 --seeds=10000"),
    ("halving", "--budget=1000"),
    # fewer than another flag asks for
    ("sweep", "--best=100"),
    ("sweep", "--best=100 --strategy=grid --points=2"),
    ("sweep", "--trials=5 --strategy=halving"),
    ("sweep", "--steps=5 --strategy=halving"),
    # spaces
    ("sweep", "--space=hidden=int:1:99999999999"),
    ("sweep", "--space=lag=1000000000000"),
    ("sweep", "--space=depth=1000000"),
    ("sweep", "--space=batch_size=logint:1:1000000000000"),
    ("sweep", f"--space=clip=int:1:{10**400}"),
    ("sweep", "--space=learning_rate=1e39"),
    ("sweep", "--space=forget_bias=uniform:-1e300:1e300"),
    # more than the machine has
    ("gates", "--hidden=1000000"),
    ("gates", "--hidden=20000"),
    ("gates", "--batch_size=1000000 --lag=1000000"),
    ("gates", "--seeds=10000 --hidden=1000"),
    ("sweep", "--space=hidden=100000"),
    ("formal", "--test_longest=1000000 --test_lengths=1000"),
    ("gers", "--tested=1000000"),
    # the flag that is at fault, not another
    ("sweep", "--lag=-1"),
    ("sweep", "--lag=1"),
    ("sweep", "--engine=pallas"),
    ("sweep", "--workdir=/dev/null"),
    ("sweep", "--workdir=/dev/null/run"),
    ("all", "--workdir=/dev/null"),
    ("all", "--workdir=/dev/null/run"),
    ("all", "--results=/no/such/directory/x"),
    ("all", "--results=/"),
    ("all", "--only=gates,nothing"),
    # no number at all
    ("gates", "--seeds="),
    ("gates", f"--steps={'9' * 5000}"),
    ("gates", "--coordinator=here:99999999 --processes=2 --process=0"),
    ("gates", "--processes=1000000000 --coordinator=here:1 --process=0"),
]  # fmt: skip


def arguments(name: str, line: str, path: Path) -> list[str]:
    """The command line, into a new directory unless it names one; a space may hold a blank."""
    flags = line.split(" --")
    flags = [flags[0], *(f"--{flag}" for flag in flags[1:])]
    given = [] if "workdir" in line else [f"--workdir={path / 'run'}"]
    return [name, *given, *flags]


@pytest.fixture
def untrained(monkeypatch):
    """An experiment ends once it is planned; jax has started, on a machine of some memory."""
    monkeypatch.setattr(runner, "start", lambda platform: None)
    monkeypatch.setattr(runner, "carry_out", lambda *arguments: 0)
    monkeypatch.setattr(everything, "call", lambda *arguments: 0)
    monkeypatch.setattr(estimate, "memory", lambda: HERE)


@pytest.mark.parametrize(("name", "line"), LINES, ids=lambda text: text[:50])
def test_an_absurd_line_is_refused_in_one_sentence_by_its_first_flag(
    name, line, tmp_path, untrained, capsys
):
    if name == "all":
        code = everything.main(arguments(name, line, tmp_path))
    else:
        experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
        code = runner.main(experiment, arguments(name, line, tmp_path))
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1
    assert said.startswith(f"{name}: --") and line.partition("=")[0] in said
    assert list(tmp_path.iterdir()) == []


DEAR = {"forecast", "odyssey", "formal", "classic", "hmm", "long_memory"}  # to trace


@pytest.mark.parametrize("name", mostly_slow(everything.ORDER, {*everything.ORDER} - DEAR))
def test_the_usual_scale_fits_an_ordinary_machine(name, untrained, tmp_path):
    experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
    assert runner.main(experiment, [name, f"--workdir={tmp_path}"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "line"), LINES[::20], ids=lambda text: text[:50])
def test_a_real_process_refuses_at_once(name, line, tmp_path):
    """Most of the time goes into imports."""
    _, *flags = arguments(name, line, tmp_path)
    command = [sys.executable, "-P", "-m", f"experiments.{name}", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = run(command, env=environment)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert line.partition("=")[0] in ran.stderr
    assert list(tmp_path.iterdir()) == []
