"""formal: plan, table, verdicts and figure as functions of records; accuracy by length; one run."""

import dataclasses
import re
from typing import Any

import jax
import numpy as np
import pytest

from experiments import formal
from experiments.common import runner
from experiments.formal import CELLS, CLASSES, PUBLISHED, Formal
from lstm_jax import make_trials
from lstm_jax.report import figures
from lstm_jax.tasks import LANGUAGES
from lstm_jax.training.trials import Trials

CONFIG = Formal(
    seeds=3, tasks=("parity", "reverse_string"), cells=("lstm", "rnn", "gru"), test_lengths=5
)


def told(learnt: dict[tuple[str, str], float], scores: dict[tuple[str, str], list[float]]):
    """Records of all reported groups: accuracy in training and, for each seed, beyond."""
    records = []
    for task in CONFIG.tasks:
        for cell in CONFIG.cells:
            for trial, score in enumerate(scores.get((task, cell), [0.5, 0.5, 0.5])):
                records.append(
                    {"kind": "result", "group": f"{task}-{cell}-reported",
                     "trial": trial, "learning_rate": 1e-2, "status": "finished",
                     "test_metric": learnt.get((task, cell), 1.0),
                     "by_length": [0.99] * 4 + [score + d for d in (-0.02, -0.01, 0, 0.01, 0.02)]}
                )  # fmt: skip
    return records


def rows(learnt=None, scores=None):
    found = formal.summarise(CONFIG, told(learnt or {}, scores or {}))
    return {(row["task"], row["network"]): row for row in found}


def test_every_language_is_in_one_class_and_the_published_are_of_these():
    assert sorted(name for of in CLASSES.values() for name in of) == sorted(LANGUAGES)
    assert all(task in LANGUAGES and cell in CELLS for task, cell in PUBLISHED)
    for (task, cell), score in PUBLISHED.items():  # as published, each claim holds
        assert (score >= 90) == (formal.class_of(task) in formal.GENERALISING[cell]), (task, cell)
    assert formal.class_of("bucket_sort") == "counting"
    generalising = {cell: set(of) for cell, of in formal.GENERALISING.items()}
    assert generalising == {"lstm": {"regular", "counting"}, "rnn": {"regular"}}


def test_lengths_are_quarters_of_the_known_and_even_steps_beyond():
    assert formal.known(Formal()) == [10, 20, 30, 40]
    assert formal.beyond(Formal()) == [50 * n for n in range(1, 11)]
    assert formal.beyond(CONFIG) == [100, 200, 300, 400, 500]


def test_tuning_comes_first_and_long_answers_have_their_own_budget():
    groups = formal.plan(CONFIG, [])
    assert [group.trials is None for group in groups] == [False, True] * 6
    assert [group.steps for group in groups] == [5000] * 6 + [2000] * 6
    assert {(g.task.shortest, g.task.longest) for g in groups} == {(1, 40)}  # pyright: ignore
    assert [group.measure is None for group in groups] == [True, False] * 6
    tuned, settings = "parity-lstm-tuning", groups[0].trials
    assert isinstance(settings, Trials) and settings.seed.tolist() == [0, 0]
    results = [
        {"kind": "result", "group": tuned, "trial": i, "status": "finished",
         "validation_correct": right, "validation_n": 9}
        for i, right in enumerate((3, 9))
    ]  # fmt: skip
    best = formal.plan(CONFIG, results)[1].trials
    assert isinstance(best, Trials) and best.seed.tolist() == [1, 2, 3]
    np.testing.assert_allclose(best.learning_rate, 1e-2, rtol=1e-6)


def test_the_score_is_the_mean_beyond_the_training_lengths():
    found = rows(scores={("parity", "lstm"): [0.6, 0.9, 0.7]})["parity", "LSTM"]
    assert [found[k] for k in ("least", "score", "best")] == pytest.approx([0.6, 0.7, 0.9])
    assert found["published_best"] == 1 and found["in_training_lengths"].value == 1


def test_verdicts_say_what_was_claimed_and_nothing_of_what_was_not_learnt():
    good, poor = [0.5, 0.97, 0.6], [0.5, 0.6, 0.55]
    parity, reverse = ("parity", "lstm"), ("reverse_string", "rnn")
    assert rows(scores={parity: good})["parity", "LSTM"]["verdict"] == "reproduces"
    assert rows(scores={parity: poor})["parity", "LSTM"]["verdict"] == "does not reproduce"
    assert rows({parity: 0.7}, {parity: poor})["parity", "LSTM"]["verdict"] == "undecided"
    assert rows(scores={reverse: poor})["reverse_string", "tanh RNN"]["verdict"] == "reproduces"
    assert (
        rows(scores={reverse: good})["reverse_string", "tanh RNN"]["verdict"]
        == "does not reproduce"
    )
    assert rows({reverse: 0.7})["reverse_string", "tanh RNN"]["verdict"] == "undecided"
    assert rows()["parity", "GRU"]["verdict"] is None
    assert formal.verdict("parity", "lstm", 0.95, 0.6) == "does not reproduce"
    assert formal.verdict("parity", "lstm", 0.95, 0.9) == "reproduces"


def test_claims_are_of_the_networks_the_paper_speaks_of():
    found = formal.claims(CONFIG, list(rows(scores={("parity", "rnn"): [1.0] * 3}).values()))
    assert [(c.claim, c.verdict) for c in found] == [
        ("An LSTM trained to length 40 generalises on parity (regular)", "does not reproduce"),
        ("A tanh RNN trained to length 40 generalises on parity (regular)", "reproduces"),
        ("An LSTM trained to length 40 does not generalise on reverse_string (context-free)",
         "reproduces"),
        ("A tanh RNN trained to length 40 does not generalise on reverse_string (context-free)",
         "reproduces"),
    ]  # fmt: skip
    assert "60.9%" in found[2].published


def test_a_panel_for_each_task_has_a_curve_for_each_network():
    records = told({}, {})
    with figures.theme():
        (picture,) = formal.draw(CONFIG, formal.summarise(CONFIG, records), records)
    panels = picture.figure.axes
    assert [axes.get_title() for axes in panels] == [
        "parity (regular)", "reverse string (context-free)"
    ]  # fmt: skip
    curve: Any = panels[0].lines[0]
    assert curve.get_xdata().tolist() == [10, 20, 30, 40, 100, 200, 300, 400, 500]
    np.testing.assert_allclose(curve.get_ydata()[-1], 0.52)


@dataclasses.dataclass(frozen=True)
class Forgetful:
    """Knows the parity of its first `most` bits, whatever its parameters; a model for the test."""

    most: int

    def apply(self, params, x, *, mask):
        del mask
        parity = x[: self.most, :, 1].sum(0) % 2
        told = jax.numpy.stack([1 - parity, parity], axis=-1) * params
        return jax.numpy.broadcast_to(told, (len(x), *told.shape))


def test_accuracy_by_length_is_right_up_to_where_the_model_counts():
    trials = make_trials(seed=[0, 1, 2])
    weights = np.array([1.0, 1.0, -1.0], np.float32)  # the last one says the contrary
    task, model = LANGUAGES["parity"](1, 4), Forgetful(8)
    got = formal.by_length(task, model, (3, 8, 30), 400, "auto", weights, trials)  # pyright: ignore
    right = np.array([record["by_length"] for record in got])
    assert right[:2, :2].tolist() == [[1, 1]] * 2 and right[2, :2].tolist() == [0, 0]
    assert np.all(np.abs(right[:, 2] - 0.5) < 4.5 * 0.5 / 20)
    assert right[0, 2] != right[1, 2], "each trial is asked its own strings"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": ("party",)}, f"--tasks=party: need one of {', '.join(LANGUAGES)}"),
        ({"cells": ("elman",)}, "--cells=elman: need one of lstm, rnn, gru, slstm, min_lstm"),
        ({"questions": 15}, "--questions=15: need a multiple of 10"),
        (
            {"longest": 60},
            "--test_longest=500: need --test_lengths=10 lengths beyond --longest=60, the first "
            "is 50",
        ),
        ({"long_steps": 0}, "--long_steps=0: need 1 to 2147483647"),
        ({"learning_rates": (-1.0,)}, "--learning_rates=-1: need 1e-30 to 1e+30"),
    ],
)
def test_bad_values_are_refused_by_flag_value_and_what_is_right(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Formal(**given)


def test_a_tiny_run_tells_accuracy_by_length(tmp_path, monkeypatch, standard_promotion):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    flags = ["--tasks=parity", "--cells=min_lstm", "--seeds=2", "--steps=4", "--hidden=2",
             "--longest=4", "--test_longest=10", "--test_lengths=2", "--questions=10",
             "--learning_rates=1e-2", "--batch_size=4"]  # fmt: skip
    assert runner.main(formal.EXPERIMENT, ["formal", *flags, f"--workdir={tmp_path / 'run'}"]) == 0
    text = (tmp_path / "run" / "records.jsonl").read_text()
    told = re.findall(r'"by_length": \[([^]]*)\]', text)
    assert len(told) == 2 and all(len(values.split(", ")) == 4 + 2 for values in told)
    assert (tmp_path / "run" / "figures" / "lengths.png").exists()
