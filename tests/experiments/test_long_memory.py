"""long_memory: plan, table and figures as functions of records; the command line as a program."""

import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from experiments import long_memory
from experiments.common import networks
from experiments.long_memory import LongMemory
from lstm_jax.report import figures
from lstm_jax.report.statistics import wilson
from lstm_jax.search import Group
from lstm_jax.training.trials import Trials
from tests import processes

ROOT = Path(__file__).parents[2]
CONFIG = LongMemory(cells=("rnn", "lstm"), lags=(5, 50), seeds=4, steps=100, digits_steps=100)
RIGHT: dict[tuple[str, int | None], list[int]]  # of 2,000, for each seed
RIGHT = {("rnn", 5): [1950] * 3 + [1899], ("lstm", 5): [2000] * 4}
RIGHT |= {("rnn", 50): [250, 206, 295, 1000], ("lstm", 50): [1900] * 4}


def result(group: str, trial: int, rate: float, **values) -> dict:
    default = {"status": "finished", "step": 100, "loss": 0.1, "metric": 0.96}
    ours = {"kind": "result", "group": group, "trial": trial, "learning_rate": rate}
    return {**ours, **default, **values}


def tuned(best: float) -> list[dict]:
    """Results of all tuning groups, in which one rate did best."""
    grid = [(rate, seed) for rate in CONFIG.learning_rates for seed in range(3)]
    return [
        result(f"{p.group(cell)}-tuning", i, rate, validation_correct=int(rate == best),
               validation_n=9)
        for p in long_memory.problems(CONFIG)
        for cell in CONFIG.cells
        for i, (rate, _) in enumerate(grid)
    ]  # fmt: skip


def trials(group: Group) -> Trials:
    assert group.trials is not None
    return group.trials


def reported() -> list[dict]:
    """Records of all reported groups: a progress line for each trial halfway, and its result."""
    records = []
    for problem in long_memory.problems(CONFIG):
        for cell in CONFIG.cells:
            group = f"{problem.group(cell)}-reported"
            right = RIGHT.get((cell, problem.lag), [330] * 4)
            total = 360 if problem.lag is None else 2000
            for trial, correct in enumerate(right):
                halfway = {"kind": "progress", "group": group, "trial": trial, "step": 50}
                records.append({**halfway, "loss": 1.0, "metric": 0.5 if trial else 0.95})
                records.append(result(group, trial, 3e-3, test_correct=correct, test_n=total))
    return records


ROWS = long_memory.summarise(CONFIG, reported())


def test_tuning_comes_first_and_reports_wait_for_it():
    groups = long_memory.plan(CONFIG, [])
    assert [group.name for group in groups[:4]] == [
        "recall_5-rnn-tuning",
        "recall_5-rnn-reported",
        "recall_5-lstm-tuning",
        "recall_5-lstm-reported",
    ]
    assert len(groups) == 2 * 2 * 3  # phases, networks, problems
    assert [group.trials is None for group in groups] == [False, True] * 6
    assert [group.split for group in groups] == ["validation", "test"] * 6


def test_every_network_gets_the_same_grid_budget_and_clipping_on_other_seeds():
    groups = long_memory.plan(CONFIG, tuned(best=3e-3))
    tuning, reports = groups[::2], groups[1::2]
    for group in tuning:
        assert trials(group).seed.tolist() == [0, 1, 2] * 5
        rates = trials(group).learning_rate[::3]
        np.testing.assert_allclose(rates, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2], rtol=1e-6)
    for group in reports:
        assert trials(group).seed.tolist() == [3, 4, 5, 6]
        np.testing.assert_allclose(trials(group).learning_rate, 3e-3, rtol=1e-6)
    for group in groups:
        assert set(trials(group).clip.tolist()) == {1.0}
        assert (group.steps, group.batch_size) == (100, 16)
        assert group.model.cell.hidden == 32


def test_one_rate_needs_no_tuning():
    config = dataclasses.replace(CONFIG, learning_rates=(1e-2,))
    groups = long_memory.plan(config, [])
    assert [group.split for group in groups] == ["test"] * 6
    assert all(group.trials is not None for group in groups)


def test_the_table_counts_solved_and_chance_by_the_two_rules():
    counts = {(r["task"], r["lag"], r["network"]): (r["solved"][:2], r["at_chance"]) for r in ROWS}
    assert counts == {
        ("recall", 5, "tanh RNN"): ((3, 4), 0),
        ("recall", 5, "LSTM (bias 1)"): ((4, 4), 0),
        ("recall", 50, "tanh RNN"): ((0, 4), 2),
        ("recall", 50, "LSTM (bias 1)"): ((4, 4), 0),
        ("digits", None, "tanh RNN"): ((0, 4), 0),
        ("digits", None, "LSTM (bias 1)"): ((0, 4), 0),
    }
    assert ROWS[-1]["accuracy"].value == 330 / 360


def test_claims_are_about_the_longest_lag_and_take_the_interval_at_its_word():
    lag = max(CONFIG.lags)

    def verdicts(chrono: int, rnn: int) -> dict[str, str]:
        solved = {"LSTM (chrono)": chrono, "tanh RNN": rnn}
        rows = [
            {"task": "recall", "lag": at, "network": name, "solved": wilson(won, 10)}
            for name, count in solved.items()
            for at, won in ((lag, count), (lag - 1, 5))
        ]
        return {c.claim[:7]: c.verdict for c in long_memory.claims(CONFIG, rows)}

    assert verdicts(9, 0) == {"An LSTM": "reproduces", "A tanh ": "reproduces"}
    assert verdicts(1, 9) == {"An LSTM": "does not reproduce", "A tanh ": "does not reproduce"}
    assert verdicts(6, 4) == {"An LSTM": "undecided", "A tanh ": "undecided"}


def test_steps_to_success_are_those_of_the_solved_and_the_rest_is_censored():
    steps = [row["steps_to_success"] for row in ROWS]
    # one trial is at 95 % halfway, the others at the end; the last of the RNN's does not count
    assert steps[:3] == [(100, 1), (100, 0), (None, 4)]


def test_figures_show_the_rows(tmp_path):
    with figures.theme():
        pictures = long_memory.draw(CONFIG, ROWS, reported())
    assert [picture.name for picture in pictures] == ["recall", "digits"]
    success, accuracy = pictures[0].figure.axes
    for axes, column in ((success, "solved"), (accuracy, "accuracy")):
        for line, label in zip(axes.containers, ("tanh RNN", "LSTM (bias 1)"), strict=True):
            mine = [row[column].value for row in ROWS if row["network"] == label and row["lag"]]
            drawn = cast(ErrorbarContainer, line).lines[0]
            assert np.asarray(drawn.get_ydata(orig=False)).tolist() == mine


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": ("recal",)}, "--tasks=recal: need one of recall, copy_memory, adding, digits"),
        ({"cells": ("elman",)}, f"--cells=elman: need one of {', '.join(networks.LABELS)}"),
        ({"lags": (10, 0)}, "--lags=0: need 1 to 1000000"),
        ({"lags": (-3,)}, "--lags=-3: need 1 to 1000000"),
        (
            {"lags": (1,), "tasks": ("adding",)},
            "--lags=1: length must be an integer of at least 2, got 1",
        ),
        ({"learning_rates": (1e-3, 0.0)}, "--learning_rates=0: need 1e-30 to 1e+30"),
        ({"learning_rates": (-1.0,)}, "--learning_rates=-1: need 1e-30 to 1e+30"),
        ({"learning_rates": (float("nan"),)}, "--learning_rates=nan: need 1e-30 to 1e+30"),
        ({"learning_rates": (float("inf"),)}, "--learning_rates=inf: need 1e-30 to 1e+30"),
        ({"hidden": 0}, "--hidden=0: need 1 to 1000000"),
        ({"digits_steps": 0}, "--digits_steps=0: need 1 to 2147483647"),
        ({"batch_size": -1}, "--batch_size=-1: need 1 to 1000000"),
        ({"tuning_seeds": 0}, "--tuning_seeds=0: need 1 to 10000"),
        ({"seed": 2**32}, "--seed=4294967296: need 0 to 4294967295"),
        (
            {"seed": 2**32 - 5},
            "--seed=4294967291: the last one, 4294967303, is beyond 4294967295",
        ),
    ],
)
def test_bad_values_are_refused_by_flag_value_and_what_is_right(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LongMemory(**given)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "experiments.long_memory", *arguments]


@pytest.fixture
def environment(tmp_path_factory) -> dict[str, str]:
    """The processes of a test compile each program once."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    return {**os.environ, **cache, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def test_the_program_refuses_in_one_line_with_code_2_and_writes_nothing(environment, tmp_path):
    told = processes.run(command("--platform=tpu"), cwd=tmp_path, env=environment)
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr.startswith("long_memory: --platform=tpu: jax finds none here")
    assert told.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
