"""A whole training of 16 trials on real sequences: one program of ours, torch one after another.

Same inputs, rows, sizes, hyperparameters, epochs: four learning rates with four seeds each, Adam,
batches of 16, an LSTM whose last state a dense layer reads. torch runs nn.LSTM on packed sequences,
on as many threads as there are cores. Our time has compilation in it, which a user waits for, too.
"""

import importlib
import os
import time
from typing import Any, NamedTuple

import numpy as np

import lstm_jax as lj
from lstm_jax.report.statistics import interval

RATES, SEEDS, BATCH = (1e-3, 3e-3, 1e-2, 3e-2), 4, 16


class Problem(NamedTuple):
    """Real sequences, and how they are learnt."""

    name: str
    task: Any
    hidden: int
    epochs: int


def japanese_vowels() -> Problem:
    """270 training rows of 7 to 29 time steps, 12 channels, 9 speakers; 370 test rows."""
    datasets = importlib.import_module("aeon.datasets")
    parts = [datasets.load_japanese_vowels(split=split) for split in ("train", "test")]
    train, test = (lj.data.Sequences([np.asarray(row).T for row in x], y) for x, y in parts)
    task = lj.tasks.Classification(lj.data.Split(train=train, test=test))
    return Problem("Japanese vowels", task, hidden=64, epochs=30)


def digits() -> Problem:
    """1,437 training rows of 64 pixels, 10 digits; 360 test rows."""
    pixels, labels = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    data = lj.data.Sequences(pixels[..., None], labels)
    task = lj.tasks.Classification(data.split(validation=0, test=0.2, stratify=True))
    return Problem("sequential digits", task, hidden=64, epochs=15)


PROBLEMS = (japanese_vowels, digits)


def own_data(repeats: int) -> list[dict[str, Any]]:
    """Seconds of the 16 trainings, and test accuracies, of ours and of torch."""
    rows = []
    for make in PROBLEMS:
        problem = make()
        seconds: dict[str, list[float]] = {"lstm_jax": [], "torch": []}
        accuracies = {}
        for repeat in range(repeats):
            for name in sorted(seconds, reverse=bool(repeat % 2)):
                started = time.perf_counter()
                accuracies[name] = TRAIN[name](problem)
                seconds[name].append(time.perf_counter() - started)
        rows.append(_row(problem, seconds, accuracies))
        print(_line(rows[-1]), flush=True)
    return rows


def _row(problem: Problem, seconds: dict[str, list[float]], accuracies: Any) -> dict[str, Any]:
    return {
        "kind": "own data",
        "data": problem.name,
        "hidden": problem.hidden,
        "epochs": problem.epochs,
        "median_s": {name: float(np.median(each)) for name, each in seconds.items()},
        "all_s": seconds,
        "accuracy": {
            name: [list(interval(rates.tolist())) for rates in found]
            for name, found in accuracies.items()
        },
    }


def _line(row: dict[str, Any]) -> str:
    ours, torch = row["median_s"]["lstm_jax"], row["median_s"]["torch"]
    lines = [f"{row['data']}: lstm_jax {ours:.1f} s, torch {torch:.1f} s, {ours / torch:.2f} of it"]
    for n, rate in enumerate(RATES):
        each = (
            f"{name} {mean:.1%} [{low:.1%}, {high:.1%}]"
            for name, found in row["accuracy"].items()
            for mean, low, high in [found[n]]
        )
        lines.append(f"  learning rate {rate:g}: test accuracy " + ", ".join(each))
    return "\n".join(lines)


def train_ours(problem: Problem) -> np.ndarray:
    """Returns test accuracies [learning rates, seeds]."""
    model = lj.nn.SequenceSpec(lj.cells.LSTM(problem.hidden))
    result = lj.fit(
        problem.task, model, epochs=problem.epochs, seeds=SEEDS, learning_rate=list(RATES),
        batch_size=BATCH, progress=False,
    )  # fmt: skip
    return result.evaluate("test").metric.reshape(len(RATES), SEEDS)


def train_torch(problem: Problem) -> np.ndarray:
    """Returns test accuracies [learning rates, seeds]."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = {split: _tensors(torch, problem.task, split) for split in ("train", "test")}
    found = [[_one(torch, problem, rows, rate, seed) for seed in range(SEEDS)] for rate in RATES]
    return np.array(found)


TRAIN = {"lstm_jax": train_ours, "torch": train_torch}


def _tensors(torch: Any, task: Any, split: str) -> tuple[Any, Any, Any]:
    """Returns x [N, T, D], lengths [N] and labels [N]: our inputs, scaled as we scale them."""
    arrays = task.rows(split)
    index = np.arange(task.count(arrays))
    batch = task.batch(arrays, index, np.ones(len(index), np.float32))
    x = np.swapaxes(np.array(batch.x), 0, 1)
    steps = np.full(len(x), x.shape[1]) if batch.mask is None else np.array(batch.mask).sum(0)
    labels = np.array(batch.y.value)[:, 0].astype(int)
    return torch.tensor(x), torch.tensor(steps), torch.tensor(labels)


def _one(torch: Any, problem: Problem, rows: Any, rate: float, seed: int) -> float:
    """Returns the test accuracy of one training."""
    torch.manual_seed(seed)
    (x, lengths, labels), task = rows["train"], problem.task
    lstm = torch.nn.LSTM(task.input_size, problem.hidden, batch_first=True)
    head = torch.nn.Linear(problem.hidden, task.output_size)
    optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=rate)

    def logits(x, lengths):
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        return head(lstm(packed)[1][0][0])

    for _ in range(problem.epochs):
        for some in torch.randperm(len(x)).split(BATCH):
            loss = torch.nn.functional.cross_entropy(logits(x[some], lengths[some]), labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        x, lengths, labels = rows["test"]
        return float((logits(x, lengths).argmax(1) == labels).float().mean())
