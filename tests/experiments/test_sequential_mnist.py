"""sequential_mnist: plan, table and claims as functions of records; one tiny run."""

import csv
from pathlib import Path

import numpy as np
import pytest

from experiments import sequential_mnist
from experiments.common import runner
from experiments.sequential_mnist import LABELS, SequentialMNIST
from tests.experiments.serving import predicted

CONFIG = SequentialMNIST(networks=("lstm", "rnn"), seeds=3, steps=100)


def results(right: dict[str, list[int]]) -> list[dict]:
    """The reported results on 100 test digits."""
    return [
        {"kind": "result", "group": f"digits-{cell}-reported", "trial": n, "learning_rate": 3e-3,
         "status": "finished", "test_correct": correct, "test_n": 100}
        for cell, counts in right.items()
        for n, correct in enumerate(counts)
    ]  # fmt: skip


def test_rates_are_chosen_on_validation_and_other_seeds_are_tested():
    tuning, report, *_ = sequential_mnist.plan(CONFIG, [])
    assert (tuning.split, report.split) == ("validation", "test") and report.trials is None
    assert tuning.trials is not None and set(tuning.trials.seed.tolist()) == {0, 1}
    assert set(tuning.trials.decay.tolist()) == {100.0}
    one = SequentialMNIST(networks=("lstm",), learning_rates=(1e-3,))
    (report,) = sequential_mnist.plan(one, [])
    assert report.trials is not None and report.trials.seed.tolist() == list(range(2, 10))
    assert (report.task.length, report.task.input_size) == (64, 1), "pixel by pixel"


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        ([97, 97, 98], "reproduces"),
        ([90, 91, 90], "does not reproduce"),
        ([93, 99, 94], "undecided"),
    ],
)
def test_the_claim_takes_the_interval_at_its_word(right, verdict):
    rows = sequential_mnist.summarise(CONFIG, results({"lstm": right, "rnn": [50, 60, 70]}))
    (claim,) = sequential_mnist.claims(CONFIG, rows)
    assert claim.verdict == verdict and "95 %" in claim.claim


def test_published_numbers_stand_beside_mnist_alone():
    assert sequential_mnist.published("digits", "lstm") == "-"
    assert sequential_mnist.published("smnist", "lstm").startswith("98.9 %")
    assert sequential_mnist.published("pmnist", "irnn").startswith("82.0 %")
    assert sequential_mnist.published("pmnist", "min_lstm") == "-"


def test_damaged_files_are_named_with_the_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    for name in sequential_mnist.mnist.FILES:
        (tmp_path / name).write_bytes(b"no gzip")
    line = ["sequential_mnist", "--tasks=smnist", f"--data_dir={tmp_path}"]
    assert runner.main(sequential_mnist.EXPERIMENT, line) == 2
    said = capsys.readouterr().err
    assert said.startswith("sequential_mnist: --data_dir") and said.count("\n") == 1
    assert "train-images-idx3-ubyte.gz must be a whole gzip file" in said


def test_a_tiny_run_ends_with_table_and_figure_and_a_model(
    monkeypatch, tmp_path: Path, standard_promotion
):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    tiny = "--networks=rnn --learning_rates=1e-2 --seeds=2 --steps=2 --hidden=2 --batch_size=2"
    line = [
        "sequential_mnist",
        *tiny.split(),
        "--engine=reference",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert runner.main(sequential_mnist.EXPERIMENT, line) == 0
    rows = list(csv.DictReader((tmp_path / "run" / "summary.csv").read_text().splitlines()))
    assert [row["network"] for row in rows] == [LABELS["rnn"]]
    assert (tmp_path / "run" / "figures" / "sequential_mnist.png").exists()
    np.savez(tmp_path / "new.npz", x=np.linspace(0, 1, 3 * 64).reshape(3, 64, 1))
    model = tmp_path / "run" / "models" / "digits-rnn-reported"
    lines = predicted(model, tmp_path / "new.npz", "--probabilities")
    assert {line["prediction"] for line in lines} <= set("0123456789")
    assert [sum(float(line[f"p_{k}"]) for k in range(10)) for line in lines] == pytest.approx(
        [1] * 3
    )
