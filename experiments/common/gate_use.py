"""The use that trained LSTMs make of their gates, for `gates`."""

import functools
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import jax
import numpy as np

import lstm_jax as lj
from experiments.common import networks
from lstm_jax import diagnostics, evaluate
from lstm_jax.cells import LSTM
from lstm_jax.nn import SequenceSpec
from lstm_jax.report import traces
from lstm_jax.report.ledger import Record
from lstm_jax.tasks import Task
from lstm_jax.training import Trials

NEAR = 0.1
SEQUENCES = 200  # of `trace`
ASKED = 2000  # of the accuracy with a gate held
NETWORKS, SHOWN = 2, 4  # that heat maps show, and sequences of each
SELECTORS = ("i", "f", "o")
HELD = ("1", "its mean")
FATES = ("kept", "added to", "eliminated", "overwritten", "in between")


def gate_use(
    task: Task, model: SequenceSpec, batching: str, params: Any, trials: Trials
) -> list[Record]:
    """Returns the measurements of each network's gates, a mapping for each trial.

    {"near_0" and "near_1": {gate: share}, "decay": of each unit, "fates": {place: shares}, "when":
    shares at each step, "left": {gate: {held at: accuracy}}}, and of the first networks "shown".
    """
    batch = jax.device_get(task.sample(jax.random.key(0), SEQUENCES, "test"))
    run = functools.partial(lj.trace, model.cell, engine=model.engine)
    layer = networks.recurrent(model, params)
    gates, states, shares, decay = jax.device_get(
        jax.jit(lambda params: jax.lax.map(functools.partial(_traced, run, batch.x), params))(layer)
    )
    marked = batch.x[..., -1] == 1
    means = {name: getattr(gates, name).mean((1, 2)) for name in SELECTORS}
    left = ablated(task, model, batching, params, trials, means)
    found = []
    for trial in range(len(trials.seed)):
        mine, kept, *near = jax.tree.map(lambda leaf, n=trial: leaf[n], (gates, states, *shares))
        fate = fates(mine)
        low, high = ({g: float(getattr(part, g).mean()) for g in SELECTORS} for part in near)
        one = {
            "near_0": low,
            "near_1": high,
            "decay": np.sort(decay[trial])[::-1],
            "fates": {"marked": counts(fate[marked]), "elsewhere": counts(fate[~marked])},
            "when": [counts(step) for step in fate],
            "left": {g: {how: left[g, how][trial] for how in HELD} for g in SELECTORS},
        }
        if trial < NETWORKS:
            one["shown"] = shown(batch, mine, kept, decay[trial])
        found.append(one)
    return found


def _traced(run: Callable, x: Any, params: Any) -> Any:
    """Returns gates and states [T, B, H], shares near 0 and 1, and decay times [H]."""
    trace = run(params, x)
    shares = diagnostics.saturation(trace.gates, low=NEAR, high=1 - NEAR)
    return trace.gates, trace.states, shares, diagnostics.decay_time(trace.gates.f)


def fates(gates: Any) -> np.ndarray:
    """Returns the kind of each cell position at each step, as indices into `FATES`."""
    added = np.abs(gates.i * gates.g) >= NEAR
    kept, gone = gates.f > 1 - NEAR, gates.f < NEAR
    return np.select([kept & ~added, kept, gone & ~added, gone], [0, 1, 2, 3], 4)


def counts(fate: np.ndarray) -> np.ndarray:
    """Returns the share of each of `FATES`."""
    return np.bincount(fate.ravel(), minlength=len(FATES)) / fate.size


def ablated(
    task: Task, model: SequenceSpec, batching: str, params: Any, trials: Trials,
    means: Mapping[str, np.ndarray],
) -> dict[tuple[str, str], np.ndarray]:  # fmt: skip
    """Returns the accuracy [R] with one gate held at 1 or at unit means [R, H]."""
    left = {}
    for gate, how in product(SELECTORS, HELD):
        value = np.ones_like(means[gate]) if how == "1" else means[gate]
        evaluated = evaluate(
            task, model, held(params, model.cell.gates.index(gate), value), trials,
            sequences=ASKED, batching=batching,
        )  # fmt: skip
        left[gate, how] = evaluated.correct / evaluated.n
    return left


def held(params: Any, block: int, value: np.ndarray) -> Any:
    """Returns parameters [R, ...] of an LSTM with one gate held at `value` [R, H].

    Its weights are zero and its bias logit(value), at most 40: to float32's precision 1.
    """
    H = value.shape[-1]
    columns = slice(block * H, (block + 1) * H)
    with np.errstate(divide="ignore"):
        logit = np.clip(np.log(value) - np.log1p(-value), -40, 40)

    def edited(path, leaf):
        leaf = np.array(leaf)
        if path[-1].key in ("w_x", "w_h", "b"):
            leaf[..., columns] = logit if path[-1].key == "b" else 0
        return leaf

    return jax.tree.map_with_path(edited, params)


def shown(batch: Any, gates: Any, states: Any, decay: np.ndarray) -> list[Record]:
    """Returns the first sequences, units sorted by memory, to three digits."""
    by_memory = np.argsort(-decay)
    units = {name: getattr(gates, name) for name in LSTM.gates}
    units |= {name: getattr(states, name) for name in LSTM.states}
    return [
        {
            "answer": float(np.round(batch.y[n], 3)),
            "input": traces.rounded(batch.x[:, n].T),
            **{name: traces.rounded(v[:, n, by_memory].T) for name, v in units.items()},
        }
        for n in range(SHOWN)
    ]
