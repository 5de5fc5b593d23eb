"""Benchmarks of training: trial-steps per second, and losses in bfloat16 and float32."""

import functools
import itertools
from typing import Any

import jax
import numpy as np

import lstm_jax as lj
from lstm_jax import nn, tasks
from lstm_jax.report import tables
from lstm_jax.tasks.base import never_solved
from lstm_jax.training import parallel
from scripts._rivals import Clock, interleaved

LENGTH, BATCH, HIDDEN = 100, 16, 32  # as in the experiments
TRIAL_STEPS, LEAST_STEPS = 1000, 10  # of one timed call: of all trials together, of each at least
ALONE = 8  # trials that run one by one
LAG, CHECKPOINTS = 50, 6


def throughput(counts: list[int], repeats: int, minutes: float) -> list[dict[str, Any]]:
    """Measures trial-steps per second of R trials in one program, and of trials one by one.

    Each call continues from states after one step, so compiling and drawing initial parameters are
    not timed. Programs that do not compile within half of `minutes` are left out.
    """
    clock = Clock(minutes / 2)
    task = tasks.Adding(length=LENGTH)
    model = nn.SequenceSpec(lj.cells.LSTM(HIDDEN), task.input_size, task.output_size)
    cpu = jax.default_backend() == "cpu"
    alone = Together(task, model, 1, parallel.resolve("auto", parallel.everywhere()))
    alone.steps = TRIAL_STEPS // ALONE
    calls: dict[str, Any] = {"one by one": lambda n: [alone(n) for _ in range(ALONE)]}
    updates = {"one by one": ALONE * alone.steps}
    for R, batching in itertools.product(counts, ("map", "vmap")):
        if (cpu or R <= 64 or batching == "vmap") and clock.fits():
            make = functools.partial(Together, task, model, R, batching)
            name = f"{R} by {batching}"
            calls[name] = clock.timed(make)
            updates[name] = R * calls[name].steps
    times = interleaved(calls, repeats, warm=True)
    rates = {name: 1e3 * updates[name] / each for name, each in times.items()}
    row = {
        "shape": [LENGTH, BATCH, task.input_size, HIDDEN],
        "kind": "trial-steps a second",
        "median": {name: float(np.median(each)) for name, each in rates.items()},
        "quartiles": {name: np.percentile(e, (25, 75)).tolist() for name, e in rates.items()},
    }
    print(throughput_table(row, counts))
    return [row]


class Together:
    """R trials in one program; a call trains each for `steps` updates."""

    def __init__(self, task: Any, model: Any, R: int, batching: str):
        self.problem: tuple[Any, Any] = (task, model)
        self.batching = batching
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

    def __call__(self, n: int) -> None:
        """Trains from the states after one step."""
        self.fit(1 + self.steps, self.begun)


def throughput_table(row: dict[str, Any], counts: list[int]) -> str:
    """Returns a row for each R, with its speed relative to trials one by one."""
    median, head = row["median"], "best / one by one"
    alone = median["one by one"]
    lines = [{"R": "one by one", "map": f"{alone:.0f}", "vmap": "", head: "1.00"}]
    for R in counts:
        found = {b: median.get(f"{R} by {b}") for b in ("map", "vmap")}
        best = max((rate for rate in found.values() if rate), default=0.0) / alone
        cells = {b: f"{rate:.0f}" if rate else "" for b, rate in found.items()}
        lines.append({"R": str(R), **cells, head: f"{best:.2f}" if best else "no time"})
    return tables.markdown(lines)


def precision(seeds: int = 8, steps: int = 1200, rate: float = 1e-2) -> list[dict[str, Any]]:
    """Compares the training loss of `recall` in bfloat16 and in float32.

    Both start from the same parameters and see the same data. The network is the LSTM with chrono
    biases of `long_memory`, which learns this task reliably. Rows have the mean difference of pairs
    of one seed, its standard error, and the standard deviation over seeds in float32.
    """
    task = never_solved(tasks.Recall(lag=LAG))
    trials = lj.make_trials(seed=list(range(seeds)), learning_rate=rate, clip=1.0)
    marks = [steps * n // CHECKPOINTS for n in range(1, CHECKPOINTS + 1)]
    losses = {dtype: curve(task, trials, marks, dtype) for dtype in ("float32", "bfloat16")}
    rows = list(map(paired, marks, losses["float32"], losses["bfloat16"]))
    print(precision_table(rows))
    return rows


def curve(task: Any, trials: Any, marks: list[int], dtype: str) -> list[np.ndarray]:
    """Returns the running training losses [R] at each of the steps `marks`."""
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
    """Returns the comparison of two samples of losses over the same seeds."""
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
    """Returns a row for each checkpoint."""
    lines = []
    for row in rows:
        line = {"step": row["step"]} | {d: f"{row[d]:.4f}" for d in ("float32", "bfloat16")}
        line["difference"] = f"{row['difference']:+.4f} ± {row['standard_error']:.4f}"
        lines.append({**line, "spread over seeds": f"{row['spread_over_seeds']:.4f}"})
    return tables.markdown(lines)
