"""A whole training of 16 trials on real sequences: one program of ours, torch one after another.

Four learning rates with four seeds each train an LSTM, and a dense layer on its last state, by
Adam. Inputs, rows, sizes, epochs and the distribution of initial recurrent weights are the same.
torch runs nn.LSTM, on packed sequences if lengths differ, on as many threads as cores. Our time
includes compilation, for which a user waits, too.
"""

import functools
import importlib
import importlib.util
import math
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import lstm_jax as lj
from lstm_jax.report.statistics import interval
from scripts._rivals import keeping, seconds

RATES, SEEDS = (1e-3, 3e-3, 1e-2, 3e-2), 4


class Problem(NamedTuple):
    """A task of real sequences, and the network and training for it."""

    name: str
    task: Any
    hidden: int
    epochs: int
    batch: int = 16


class Training(NamedTuple):
    """One training by torch; only arrays and numbers, so another process can take it."""

    # split -> x [N, T, D], lengths [N] and labels [N]
    rows: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    start: dict[str, np.ndarray]  # the state dictionary of nn.LSTM, drawn as ours
    classes: int
    epochs: int
    batch: int
    rate: float
    seed: int
    clip: float = math.inf


def has_torch() -> bool:
    """Returns whether torch is installed; imports it, or prints that it is left out."""
    if importlib.util.find_spec("torch") is None:
        print("bench: torch left out, it is not installed", file=sys.stderr)
        return False
    importlib.import_module("torch")
    return True


def installed(calls: dict[str, Any]) -> dict[str, Any]:
    """Returns the calls by name, without that of torch where it is not installed."""
    return calls if has_torch() else {n: call for n, call in calls.items() if n != "torch"}


def japanese_vowels() -> Problem:
    """Returns 270 training rows of 7 to 29 time steps, 12 channels, 9 speakers; 370 test rows."""
    datasets = importlib.import_module("aeon.datasets")
    parts = [datasets.load_japanese_vowels(split=split) for split in ("train", "test")]
    train, test = (lj.data.Sequences([np.asarray(row).T for row in x], y) for x, y in parts)
    task = lj.tasks.Classification(lj.data.Split(train=train, test=test))
    return Problem("Japanese vowels", task, hidden=64, epochs=30)


def own_data(problem: Problem, repeats: int) -> dict[str, Any]:
    """Times the 16 trainings of ours and of torch; test accuracies."""
    calls, found = keeping(
        {name: lambda n, train=train: [train(problem)] for name, train in installed(TRAIN).items()}
    )
    row = {"kind": "own data", "data": problem.name, "hidden": problem.hidden}
    row |= {"epochs": problem.epochs, **seconds(calls, repeats)}
    last = {name: every[-1].tolist() for name, every in found.items()}
    row["accuracy"] = {name: [list(interval(each)) for each in e] for name, e in last.items()}
    print(_line(row), flush=True)
    return row


def _line(row: dict[str, Any]) -> str:
    ours, torch = row["median_s"]["lstm_jax"], row["median_s"].get("torch")
    beside = f", torch {torch:.1f} s, {ours / torch:.2f} of it" if torch else ""
    lines = [f"{row['data']}: lstm_jax {ours:.1f} s{beside}"]
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
    jax.clear_caches()
    model = lj.nn.SequenceSpec(lj.cells.LSTM(problem.hidden))
    result = lj.fit(
        problem.task, model, epochs=problem.epochs, seeds=SEEDS, learning_rate=list(RATES),
        batch_size=problem.batch, progress=False,
    )  # fmt: skip
    return result.evaluate("test").metric.reshape(len(RATES), SEEDS)


def train_torch(problem: Problem) -> np.ndarray:
    """Returns test accuracies [learning rates, seeds]."""
    settings = [(rate, seed) for rate in RATES for seed in range(SEEDS)]
    found = [with_torch(one) for one in trainings(problem, settings)]
    return np.array(found).reshape(len(RATES), SEEDS)


TRAIN = {"lstm_jax": train_ours, "torch": train_torch}


def trainings(problem: Problem, settings: Sequence[tuple]) -> list[Training]:
    """Returns a training by torch for each (learning rate, seed) or (learning rate, seed, clip)."""
    task, cell = problem.task, lj.cells.LSTM(problem.hidden)
    rows = {split: rows_of(task, split) for split in ("train", "test")}

    @functools.cache
    def start(seed):
        params = lj.init(cell, jax.random.key(seed), task.input_size)
        return lj.interop.to_torch(cell, ((params,),))

    shared = task.output_size, problem.epochs, problem.batch
    return [
        Training(rows, start(seed), *shared, rate, seed, *clip) for rate, seed, *clip in settings
    ]


def rows_of(task: Any, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns x [N, T, D], scaled as ours, lengths [N] and labels [N]."""
    arrays = task.rows(split)
    index = np.arange(task.count(arrays))
    batch = task.batch(arrays, index, np.ones(len(index), np.float32))
    x = np.swapaxes(np.array(batch.x), 0, 1)
    steps = np.full(len(x), x.shape[1]) if batch.mask is None else np.array(batch.mask).sum(0)
    return x, steps, np.array(batch.y.value)[:, 0].astype(int)


def with_torch(given: Training, threads: int | None = None) -> float:
    """Returns the test accuracy of one training, by default on as many threads as cores."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    torch.manual_seed(given.seed)
    rows = {split: tuple(map(torch.tensor, arrays)) for split, arrays in given.rows.items()}
    x, lengths, labels = rows["train"]
    G, D = given.start["weight_ih_l0"].shape
    lstm = torch.nn.LSTM(D, G // 4, batch_first=True)
    lstm.load_state_dict({name: torch.tensor(array) for name, array in given.start.items()})
    head = torch.nn.Linear(G // 4, given.classes)
    params = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(params, lr=given.rate)
    ragged = bool((lengths < x.shape[1]).any())

    def logits(x, lengths):
        if not ragged:
            return head(lstm(x)[0][:, -1])
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        return head(lstm(packed)[1][0][0])

    for _ in range(given.epochs):
        for some in torch.randperm(len(x)).split(given.batch):
            loss = torch.nn.functional.cross_entropy(logits(x[some], lengths[some]), labels[some])
            optimizer.zero_grad()
            loss.backward()
            if math.isfinite(given.clip):
                torch.nn.utils.clip_grad_norm_(params, given.clip)
            optimizer.step()
    with torch.no_grad():
        x, lengths, labels = rows["test"]
        return float((logits(x, lengths).argmax(1) == labels).float().mean())
