"""Benchmarks of training: how many trials a second, and whether 16 bits learn what 32 do."""

import functools
import time
from typing import Any

import jax
import numpy as np

import lstm_jax as lj
from lstm_jax import nn, tasks
from lstm_jax.tasks.base import never_solved
from lstm_jax.training import parallel
from scripts._rivals import Clock

LENGTH, BATCH, HIDDEN = 100, 16, 32  # the experiments' size
TRIAL_STEPS, LEAST_STEPS = 1000, 10  # of one timed call: all trials together, and each of them
ALONE = 8  # trials that are run one by one
LAG, CHECKPOINTS = 50, 6


def throughput(counts: list[int], repeats: int, minutes: float) -> list[dict[str, Any]]:
    """Trial-steps a second of R trials in one program, and of trials one by one.

    Each call goes on from states one step old, so that neither compiling nor drawing initial
    parameters is timed. What does not compile in half of `minutes` is left out, and there are
    fewer rounds, at least one, where they do not fit the rest.
    """
    clock, compiling = Clock(minutes), Clock(minutes / 2)
    task = tasks.make("adding", length=LENGTH)
    model = nn.SequenceSpec(lj.cells.LSTM(HIDDEN), task.input_size, task.output_size)
    cpu = jax.default_backend() == "cpu"
    sizes = [(R, b) for R in counts for b in ("map", "vmap") if b == "vmap" or cpu or R <= 64]
    calls: dict[str, Any] = {"one by one": OneByOne(task, model)}
    for R, b in sizes:
        if compiling.fits():
            make = functools.partial(Together, task, model, R, b)
            calls[f"{R} by {b}"] = compiling.timed(make)
    rates = {name: [] for name in calls}

    def one_round(order):
        for name in order:
            rates[name].append(calls[name]())

    for n, order in enumerate(np.random.default_rng(0).permuted([list(calls)] * repeats, axis=1)):
        if not n or clock.fits():
            clock.timed(functools.partial(one_round, order))
    row = {
        "shape": [LENGTH, BATCH, task.input_size, HIDDEN],
        "kind": "trial-steps a second",
        "median": {name: float(np.median(found)) for name, found in rates.items()},
        "quartiles": {
            name: np.percentile(found, (25, 75)).tolist() for name, found in rates.items()
        },
    }
    print(throughput_table(row, counts))
    return [row]


class Together:
    """R trials in one program; called, it returns trial-steps a second."""

    def __init__(self, task: Any, model: Any, R: int, batching: str):
        self.problem: tuple[Any, Any] = (task, model)
        self.batching, self.R = batching, R
        self.trials = lj.make_trials(seed=list(range(R)), learning_rate=1e-4)
        self.steps = max(LEAST_STEPS, TRIAL_STEPS // R)
        self.begun = self.fit(1, None).state
        self.fit(2, self.begun)

    def fit(self, steps: int, state: Any) -> Any:
        """Trains up to `steps`."""
        return lj.fit(
            *self.problem, self.trials, steps, begin_from=state, batching=self.batching,
            batch_size=BATCH, progress=False,
        )  # fmt: skip

    def __call__(self) -> float:
        """Times `steps` updates of each trial."""
        began = time.perf_counter()
        self.fit(1 + self.steps, self.begun)
        return self.R * self.steps / (time.perf_counter() - began)


class OneByOne:
    """Trials run one after another, each by a call of `fit` of its own."""

    def __init__(self, task: Any, model: Any):
        batching = parallel.resolve("auto", parallel.everywhere())
        self.alone = Together(task, model, 1, batching)
        self.alone.steps = TRIAL_STEPS // ALONE

    def __call__(self) -> float:
        """Times them all."""
        began = time.perf_counter()
        for _ in range(ALONE):
            self.alone()
        return ALONE * self.alone.steps / (time.perf_counter() - began)


def throughput_table(row: dict[str, Any], counts: list[int]) -> str:
    """A row for each R, and how much more than one by one."""
    median, alone = row["median"], row["median"]["one by one"]
    lines = ["| R | map | vmap | best / one by one |", "|--:|--:|--:|--:|"]
    lines.append(f"| one by one | {alone:.0f} | | 1.00 |")
    for R in counts:
        found = {b: median.get(f"{R} by {b}") for b in ("map", "vmap")}
        best = max((rate for rate in found.values() if rate), default=0.0) / alone
        cells = ["" if rate is None else f"{rate:.0f}" for rate in found.values()]
        lines.append(f"| {R} | {cells[0]} | {cells[1]} | {f'{best:.2f}' if best else 'no time'} |")
    return "\n".join(lines)


def precision(seeds: int, steps: int, rate: float) -> list[dict[str, Any]]:
    """The training loss of `recall` in bfloat16 and in float32, from the same starts and data.

    The network is that of `long_memory` which learns this task surely, the LSTM with chrono biases.

    Whether they fall the same is asked of pairs of one seed: the mean of their differences, with
    its standard error, beside the spread over seeds in float32.
    """
    task = never_solved(tasks.make("recall", lag=LAG))
    trials = lj.make_trials(seed=list(range(seeds)), learning_rate=rate, clip=1.0)
    marks = [steps * n // CHECKPOINTS for n in range(1, CHECKPOINTS + 1)]
    losses = {dtype: curve(task, trials, marks, dtype) for dtype in ("float32", "bfloat16")}
    rows = [
        paired(step, losses["float32"][n], losses["bfloat16"][n]) for n, step in enumerate(marks)
    ]
    print(precision_table(rows))
    return rows


def curve(task: Any, trials: Any, marks: list[int], dtype: str) -> list[np.ndarray]:
    """The running training losses [R] at each of the steps `marks`."""
    start = lj.initializers.chrono(1.5 * task.length)
    sizes = task.input_size, task.output_size
    model = nn.SequenceSpec(lj.cells.LSTM(HIDDEN), *sizes, b=start, dtype=dtype)
    found, state = [], None
    for step in marks:
        result = lj.fit(task, model, trials, step, begin_from=state, progress=False)
        found.append(result.loss)
        state = result.state
    return found


def paired(step: int, single: np.ndarray, half: np.ndarray) -> dict[str, Any]:
    """Two samples of losses over the same seeds."""
    difference = half - single
    return {
        "kind": "precision",
        "step": step,
        "float32": float(single.mean()),
        "bfloat16": float(half.mean()),
        "difference": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / len(difference) ** 0.5),
        "spread_over_seeds": float(single.std(ddof=1)),
    }


def precision_table(rows: list[dict[str, Any]]) -> str:
    """A row for each checkpoint."""
    lines = [
        "| step | float32 | bfloat16 | difference | spread over seeds |",
        "|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        difference = f"{row['difference']:+.4f} ± {row['standard_error']:.4f}"
        losses = [f"{row[k]:.4f}" for k in ("float32", "bfloat16")]
        cells = [f"{row['step']}", *losses, difference, f"{row['spread_over_seeds']:.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
