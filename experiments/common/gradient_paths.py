"""Gradients of a trained network along the paths to its memory, for `gradient_flow`."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import networks
from lstm_jax import cells, diagnostics
from lstm_jax.cells import Cell
from lstm_jax.nn import SequenceSpec, initializers
from lstm_jax.report.ledger import Record
from lstm_jax.tasks import Task
from lstm_jax.training import Trials, keys
from lstm_jax.types import Array, Batch

SEQUENCES = 16  # that norms are averaged over
MATRICES = 2  # of these, those whose Jacobians are decomposed
WHOLE, ALONE, LARGEST = "every path", "along the cell", "largest"


class Cut:
    """A cell with a gradient along its memory alone: what is fed back is a constant."""

    def feedback(self, state):
        """Returns h as a constant."""
        return jax.lax.stop_gradient(state.h)


@dataclasses.dataclass(frozen=True)
class CutLSTM(Cut, cells.LSTM):
    """The LSTM with a gradient through f * c alone."""


@dataclasses.dataclass(frozen=True)
class CutGRU(Cut, cells.GRU):
    """The GRU with a gradient through z * h alone."""


class Network(NamedTuple):
    """A network and its measured paths."""

    label: str  # its name in figures
    cell: Callable[[int], Cell]  # the trained cell, of H
    whole: Callable[[int], Cell]  # the same with its whole gradient
    # the same with the gradient along the cell alone; None where it has no such path
    alone: Callable[[int], Cell] | None
    start: Callable[[Task], dict[str, Any]] = lambda task: {}  # (task) -> initialisers
    # (lags [K], length) -> the factor of a constant memory after so many steps, from the initial
    # biases alone; None where biases do not determine it
    keep: Callable[[np.ndarray, int], np.ndarray] | None = None


def rnn(name: str, scale: float) -> Network:
    """Returns a tanh RNN with orthogonal recurrent weights times `scale`."""
    start = {"w_h": initializers.orthogonal(scale)}
    return Network(f"RNN, {name} weights", cells.RNN, cells.RNN, None, lambda task: start)


def lstm(bias: float) -> Network:
    """Returns an LSTM with one forget bias: sigmoid(bias)^lag remains along the cell."""
    start = {"b": initializers.gate_bias(f=bias)}
    return Network(
        f"LSTM, bias {bias:g}", cells.LSTM, cells.LSTM, CutLSTM, lambda task: start,
        lambda lags, length: (1 / (1 + math.exp(-bias))) ** lags,
    )  # fmt: skip


def kept_by_chrono(lags: np.ndarray, length: int) -> np.ndarray:
    """Returns the root mean square of f^lag over units of chrono biases.

    f = u / (1 + u), with u uniform on [1, T - 1].
    """
    u = 1 + (length - 2) * (np.arange(1000) + 0.5) / 1000
    return np.sqrt(np.mean((u / (1 + u)) ** (2 * lags[:, None]), axis=1))


NETWORKS = {
    "rnn_small": rnn("small", 0.5),
    "rnn": rnn("orthogonal", 1.0),
    "rnn_large": rnn("large", 2.0),
    "gru": Network(
        "GRU", cells.GRU, cells.GRU, CutGRU, keep=lambda lags, length: 0.5**lags
    ),
    "carousel": Network(
        "carousel of 1997",
        lambda h: cells.MemoryBlocks(h, size=2, truncated=True),
        lambda h: cells.MemoryBlocks(h, size=2),
        lambda h: cells.MemoryBlocks(h, size=2, truncated=True),
        keep=lambda lags, length: np.ones(lags.shape),
    ),
    "lstm_1": lstm(1.0),
    "lstm_5": lstm(5.0),
    "lstm_chrono": Network(
        "LSTM, chrono", cells.LSTM, cells.LSTM, CutLSTM,
        lambda task: {"b": initializers.chrono(task.length)}, kept_by_chrono,
    ),
}  # fmt: skip


def paths(name: str, hidden: int = 2) -> dict[str, str]:
    """Returns the paths to a network's memory by their name in records."""
    network = NETWORKS[name]
    every = {WHOLE: f"{WHOLE}, {memory(network.whole(hidden))}"}
    return every | ({ALONE: ALONE} if network.alone else {})


def gradients(
    network: Network, model: SequenceSpec, task: Task, lags: tuple[int, ...], params: Any,
    trials: Trials,
) -> list[Record]:  # fmt: skip
    """Returns the measured gradients of each trial, as a mapping.

    For each path and state {"log10": of the norms at the lags on record, "slope": nats a step,
    "explained": share of the variance that the line explains, "ripple": largest relative change at
    any lag in any sequence}; and {"log10"} of the largest singular values.
    """
    H = model.cell.hidden
    whole, alone = network.whole(H), network.alone(H) if network.alone else None
    draw = jax.jit(jax.vmap(lambda trial: task.sample(keys(trial).evaluation, SEQUENCES, "test")))
    x, y, *_ = jax.device_get(draw(trials))
    layer, head = networks.recurrent(model, params), params["head"]
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: np.asarray(a, np.float64), (layer, head, x))
        found = jax.device_get(_measure(whole, alone, task, lags, exact, y))
    short = jax.tree.map(np.float32, found)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], short) for i in range(len(trials.seed))]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _measure(
    whole: Cell, alone: Cell | None, task: Task, lags: tuple[int, ...], exact: Any, y: Array
) -> dict[str, dict[str, Array]]:
    """Returns `gradients`, with leaves [R, ...]."""

    def of_one(args):
        (params, head, x), y = args

        def loss(h):
            return task.loss(h[-1] @ head["kernel"] + head["bias"][None], Batch(x, y))

        every = diagnostics.gradient_norms(whole, params, x, loss)
        states = [name for name in whole.states if name in ("h", "c")]
        norms = {f"{WHOLE}, {name}": getattr(every, name) for name in states}
        if alone is not None:
            cut = diagnostics.gradient_norms(alone, params, x, loss)
            norms[ALONE] = getattr(cut, memory(alone))
        J = diagnostics.jacobians(whole, params, x[:, :MATRICES])[np.array(lags)]
        largest = jnp.linalg.svd(J, compute_uv=False)[..., 0]
        fits = {name: _line(values[1:], lags) for name, values in norms.items()}
        return {**fits, LARGEST: {"log10": jnp.mean(jnp.log10(largest), axis=1)}}

    return jax.lax.map(of_one, (exact, y))


def _line(norms: Array, lags: tuple[int, ...]) -> dict[str, Array]:
    """Returns the fit of norms [lag + 1, B], relative to those at lag 0."""
    left = norms / norms[:1]
    logs = jnp.mean(jnp.log(left), axis=1)
    slope, deviation = diagnostics.log_slope(jnp.exp(logs))
    spread = jnp.var(logs, where=jnp.isfinite(logs))  # zero has no logarithm
    return {
        "log10": logs[np.array(lags)] / math.log(10),
        "slope": slope,
        "explained": 1 - deviation**2 / spread,
        "ripple": jnp.max(jnp.abs(left - 1)),
    }


def memory(cell: Cell) -> str:
    """Returns the name of the memory state."""
    return "c" if "c" in cell.states else "h"
