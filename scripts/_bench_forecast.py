"""A global LSTM for all series of M3 quarterly: eight networks of ours, one of a plain torch loop.

Windows, inputs, loss, sizes, updates and schedule are the same. Like ours, torch draws its rows
without replacement within an epoch; it has as many threads as cores. Our time includes compilation.
If a series begins within a window, ours masks the steps before, and torch reads zeros.
"""

import functools
import importlib
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lstm_jax as lj
from experiments.common import competitions
from experiments.forecast import CONTEXT, LEVELS
from lstm_jax.report.statistics import Estimate, interval
from lstm_jax.tasks import Forecast, heads
from scripts._bench_own_data import installed
from scripts._rivals import keeping, seconds

GROUP, SEEDS, HIDDEN, DEPTH = "m3_quarterly", 8, 32, 2
STEPS, BATCH, RATE, CLIP = 1000, 256, 1e-2, 1.0


def forecast(repeats: int) -> list[dict[str, Any]]:
    """Times eight trainings of ours and one of torch; test errors."""
    data = competitions.competition(GROUP, 10_000)
    windows = data.series.split(data.horizon, 0, 1)
    task = Forecast(windows, context=CONTEXT["quarterly"], head=heads.Quantiles(LEVELS))
    trains = installed(TRAIN)
    calls, errors = keeping({name: functools.partial(f, task) for name, f in trains.items()})
    row = {"kind": "forecast", "data": GROUP, **seconds(calls, repeats)}
    row["mase"] = {name: list(interval(each)) for name, each in errors.items()}
    print(_line(row), flush=True)
    return [row]


def _line(row: dict[str, Any]) -> str:
    ours, torch = row["median_s"]["lstm_jax"], row["median_s"].get("torch")
    beside = f", one of torch {torch:.1f} s, {ours / torch:.2f} of one" if torch else ""
    error = ", ".join(f"{name} {Estimate(*each)}" for name, each in row["mase"].items())
    return (
        f"{row['data']}, {STEPS} updates: {SEEDS} networks of lstm_jax {ours:.1f} s{beside}; "
        f"test MASE of a network: {error}"
    )


def train_ours(task: Forecast, repeat: int) -> list[float]:
    """Returns the test errors of eight networks."""
    model = lj.nn.SequenceSpec(lj.cells.LSTM(HIDDEN), depth=DEPTH)
    seeds = range(SEEDS * repeat, SEEDS * (repeat + 1))
    result = lj.fit(
        task, model, steps=STEPS, seeds=list(seeds), batch_size=BATCH, learning_rate=RATE,
        clip=CLIP, decay=STEPS, progress=False,
    )  # fmt: skip
    return result.evaluate("test").metric.tolist()


def train_torch(task: Forecast, repeat: int) -> list[float]:
    """Returns the test error of one network."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(repeat)
    batch = _batch(task, "train")
    x, *rest = (torch.tensor(np.array(part)) for part in (
        batch.x, batch.y.value.value, batch.y.value.there, *batch.y.value.window[:3]
    ))  # fmt: skip
    lstm = torch.nn.LSTM(x.shape[2], HIDDEN, num_layers=DEPTH)
    head = torch.nn.Linear(HIDDEN, task.output_size)
    parameters = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

    rows = torch.randperm(x.shape[1])
    for _ in range(STEPS):
        if len(rows) < BATCH:
            rows = torch.randperm(x.shape[1])
        some, rows = rows[:BATCH], rows[BATCH:]
        outputs = head(lstm(x[:, some])[0][-1])
        loss = _pinball(torch, outputs, *(part[some] for part in rest))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        schedule.step()
    test = _batch(task, "test")
    with torch.no_grad():
        outputs = head(lstm(torch.tensor(np.array(test.x)))[0][-1])
    return [float(task.metric(jnp.asarray(outputs.numpy()), test))]


TRAIN = {"lstm_jax": train_ours, "torch": train_torch}


def _batch(task: Forecast, split: str) -> Any:
    """Returns all windows of a split, masked steps at the start as zeros."""
    arrays = task.rows(split)
    count = task.count(arrays)
    index = jnp.arange(count, dtype=jnp.int32)
    batch = jax.jit(task.static.batch)(arrays, index, jnp.ones(count))
    return batch._replace(x=jnp.where(batch.mask[..., None], batch.x, 0))


def _pinball(
    torch: Any, outputs: Any, value: Any, there: Any, level: Any, spread: Any, unit: Any
) -> Any:
    """Returns the mean over windows of the quantile loss in units of the naive error."""
    z = outputs.reshape(*value.shape, len(LEVELS))
    y = level[..., None] * torch.exp(torch.clamp(spread[..., None] * z.sort(-1).values, max=30.0))
    away = (value[..., None] - y) / unit[..., None]
    levels = torch.tensor(LEVELS)
    losses = 2 * torch.maximum(levels * away, (levels - 1) * away).mean(-1)
    each = (losses * there).sum(1) / there.sum(1)
    return each.mean()
