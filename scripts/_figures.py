"""Draw the figures of docs/lstm.md and write the numbers of its text.

  carousel.png    the remaining part of a change in memory, by lag, in untrained networks
  lstm_gates.png  gates, candidate, cell and hidden state of a trained LSTM over one sequence
  lstm.json       the numbers

Command: scripts/figures
Cost: 45 CPU seconds, most of them compilation.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import orthogonal
from matplotlib.figure import Figure

import lstm_jax as lj
from lstm_jax import Result, evaluate, fit, make_trials
from lstm_jax.nn import SequenceSpec
from lstm_jax.nn.initializers import chrono, gate_bias
from lstm_jax.report import figures
from lstm_jax.report.statistics import Estimate
from lstm_jax.report.traces import Panel, heat_maps
from lstm_jax.tasks import Recall, Task

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "figures"


def extremes(values: np.ndarray) -> Estimate:
    """Returns the median of repeated values, with the least and the greatest."""
    return Estimate(float(np.median(values)), float(values.min()), float(values.max()))


# The carousel: networks before their first update. ------------------------------------------------

FAR = Recall(lag=300)
WIDTH = 32
STARTS: dict[str, tuple[lj.Cell, dict[str, Any]]] = {
    "tanh RNN": (lj.cells.RNN(WIDTH), {}),
    "tanh RNN, w_h × 1.5": (lj.cells.RNN(WIDTH), {"w_h": orthogonal(1.5)}),
    "LSTM, bias 0": (lj.cells.LSTM(WIDTH), {"b": gate_bias(f=0.0)}),
    "LSTM, bias 1": (lj.cells.LSTM(WIDTH), {"b": gate_bias(f=1.0)}),
    "LSTM, bias 5": (lj.cells.LSTM(WIDTH), {"b": gate_bias(f=5.0)}),
    "LSTM, chrono": (lj.cells.LSTM(WIDTH), {"b": chrono(FAR.length)}),
}
NOT_DRAWN = {"LSTM, bias 5, input bias -5": (lj.cells.LSTM(WIDTH), {"b": gate_bias(f=5.0, i=-5.0)})}


class Gains(NamedTuple):
    """The remaining part of a change in memory after each lag 1, 2, ..., [draws, lag] float64.

    It is |J|_F / sqrt(H) with J = d memory_T / d memory_t, for the memory c of the LSTM and h of
    the RNN: the root mean square of the final length of a random change of length 1.
    """

    whole: Any  # along every path from t to T
    cell: Any  # along the cell alone, J = diag(f_T ... f_{t+1}); None without a forget gate


def gains(cell: lj.Cell, options: Mapping[str, Any], draws: int = 20) -> Gains:
    """Returns the gains from the marked step, for fresh parameters and sequences of `FAR`."""

    def draw(key):
        init_key, data_key = jax.random.split(key)
        params = lj.init(cell, init_key, FAR.input_size, dtype=jnp.float64, **options)
        return params, FAR.sample(data_key, 1).x.astype(jnp.float64)

    with jax.enable_x64(True):
        params, x = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), draws))
        return jax.device_get(gains_along(cell, params, x))


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def gains_along(cell: lj.Cell, params: lj.CellParams, x: jax.Array) -> Gains:
    """Returns the gains [draws, T - 1] from step 0 of sequences x [draws, T, 1, D]."""
    start, _ = lj.unroll(cell, params, x[:1])
    memory = cell.states[-1]

    def later(value):
        state = start._replace(**{memory: value})
        kept = lj.trace(cell, params, x[1:], state, engine="reference")
        return getattr(kept.states, memory), kept.gates

    J, gates = jax.jacfwd(later, has_aux=True)(getattr(start, memory))  # [T - 1, 1, H, 1, H]
    whole = jnp.sqrt(jnp.sum(J**2, axis=(1, 2, 3, 4)) / cell.hidden)
    if "f" not in cell.gates:
        return Gains(whole, None)
    return Gains(whole, jnp.sqrt(jnp.mean(jnp.cumprod(gates.f, axis=0) ** 2, axis=(1, 2))))


def carousel_figure(measured: Mapping[str, Gains]) -> Figure:
    """Draws gains against lag, medians and extremes over draws."""
    with figures.theme():
        figure, ((left, right),) = figures.canvas(1, 2, (6.4, 5.6))
        for name, style in figures.styles(list(measured)).items():
            for axes, gain in ((left, measured[name].cell), (right, measured[name].whole)):
                if gain is not None:
                    lags = range(1, gain.shape[1] + 1)
                    figures.band(axes, lags, [extremes(g) for g in gain.T], style, name)
        for axes, title in ((left, "along the cell alone"), (right, "along every path")):
            axes.set(title=title, yscale="log", ylim=(1e-12, 1e6), xlabel="lag in steps")
        left.set_ylabel("what is left of a change of 1")
        figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def carousel_numbers(measured: Mapping[str, Gains], lags: Sequence[int]) -> dict[str, Any]:
    """Returns gains by network, path and lag: [median, least, greatest]."""
    return {
        name: {
            path: {str(lag): extremes(gain[:, lag - 1]) for lag in lags}
            for path, gain in paths._asdict().items()
            if gain is not None
        }
        for name, paths in measured.items()
    }


# The gates: trained networks. ---------------------------------------------------------------------

NEAR = Recall(lag=40, symbols=4)
FURTHER = Recall(lag=400, symbols=4)
MODEL = SequenceSpec(
    lj.cells.LSTM(16),
    NEAR.input_size,
    NEAR.output_size,
    b=chrono(NEAR.length),
    engine="reference",  # training amplifies rounding, and other engines' rounding may change
)
TRIALS = make_trials(seed=range(5), learning_rate=1e-2, clip=1.0)


def train() -> Result:
    """Trains five LSTMs with chrono biases to recall a symbol over 40 steps."""
    return fit(NEAR, MODEL, TRIALS, 1500, progress=False)


def traces(result: Result, sequences: int = 1000) -> tuple[lj.Batch, lj.engines.Trace]:
    """Returns test sequences and each network's trace on them, leaves [R, T, B, ...]."""
    layer = result.params["stack"]["layers"][0]
    params = lj.CellParams(layer["w_x"], layer["w_h"], layer["b"], MODEL.cell.Theta({}))
    batch = NEAR.sample(jax.random.key(0), sequences, "test")
    run = functools.partial(lj.trace, MODEL.cell, engine=MODEL.engine)
    return jax.device_get((batch, jax.jit(jax.vmap(run, (0, None)))(params, batch.x)))


def gates_figure(batch: lj.Batch, trace: lj.engines.Trace) -> Figure:
    """Draws the first network's trace on the first sequence, units of longest memory on top."""
    by_memory = np.argsort(-trace.gates.f[0].mean((0, 1)))
    i, f, g, o = (gate[0, :, 0, by_memory] for gate in trace.gates)
    h, c = (state[0, :, 0, by_memory] for state in trace.states)
    names = [*map(str, range(NEAR.symbols)), "mark"]
    panels = [
        Panel("input", batch.x[:, 0].T, 0, names), Panel("gate i", i), Panel("gate f", f),
        Panel("gate o", o), Panel("candidate g", g, -1), Panel("cell c", c, -1),
        Panel("hidden h", h, -1),
    ]  # fmt: skip
    with figures.theme():
        return heat_maps(panels)


def gates_numbers(result: Result, batch: lj.Batch, trace: lj.engines.Trace) -> dict[str, Any]:
    """Returns numbers about the networks, as lists over networks."""
    c = trace.states.c
    symbol = symbols_part(c, batch)
    explained = symbol[:, -1].var(1) / c[:, -1].var(1)
    return {
        "updates": result.step,
        "accuracy": accuracy(NEAR, result.params),
        "accuracy at ten times the lag": accuracy(FURTHER, result.params),
        "accuracy without w_h": accuracy(NEAR, without_recurrence(result.params)),
        "share of the variance of c_T that the symbol explains, least unit": explained.min(1),
        "size of the symbol's part of c, first step": np.sqrt((symbol[:, 0] ** 2).mean((1, 2))),
        "size of the symbol's part of c, last step": np.sqrt((symbol[:, -1] ** 2).mean((1, 2))),
        "share of it that the mark wrote, after 5 steps": share_of_the_mark(batch, trace, 5),
        "share of it that the mark wrote, last step": share_of_the_mark(batch, trace, NEAR.lag),
    }


def share_of_the_mark(batch: lj.Batch, trace: lj.engines.Trace, t: int) -> np.ndarray:
    """Returns the share of i_0 g_0 f_1 ... f_t in the symbol's part of c_t, [R].

    It is <mark, part> / <part, part>: 1 if nothing was added since the mark, 0 if nothing is left.
    """
    i, f, g, _ = trace.gates
    part = symbols_part(trace.states.c[:, t], batch)
    mark = symbols_part(i[:, 0] * g[:, 0] * f[:, 1 : t + 1].prod(axis=1), batch)
    return (mark * part).sum((1, 2)) / (part * part).sum((1, 2))


def symbols_part(values: np.ndarray, batch: lj.Batch) -> np.ndarray:
    """Returns the symbol's part of values [..., B, H]: mean of the symbol minus mean of all."""
    part = np.zeros_like(values)
    for symbol in range(NEAR.symbols):
        same = batch.y == symbol
        part[..., same, :] = values[..., same, :].mean(-2, keepdims=True)
    return part - values.mean(-2, keepdims=True)


def accuracy(task: Task, params: Any) -> np.ndarray:
    """Returns the share of fresh sequences that each network answers right, [R]."""
    evaluation = evaluate(task, MODEL, params, TRIALS)
    return evaluation.correct / evaluation.n


def without_recurrence(params: Any) -> Any:
    """Returns parameters with recurrent weights of zero."""
    return jax.tree.map_with_path(
        lambda path, leaf: np.zeros_like(leaf) if path[-1].key == "w_h" else leaf, params
    )


def main() -> None:
    """Draws and writes all files of docs/figures."""
    jax.config.update("jax_platforms", "cpu")  # the text has the numbers of a CPU
    measured = {name: gains(*start) for name, start in (STARTS | NOT_DRAWN).items()}
    drawn = {name: measured[name] for name in STARTS}
    result = train()
    batch, trace = traces(result)
    carousel = carousel_numbers(measured, (100, 300))
    numbers = {"carousel": carousel, "gates": gates_numbers(result, batch, trace)}
    FOLDER.mkdir(parents=True, exist_ok=True)
    FOLDER.joinpath("carousel.png").write_bytes(figures.png(carousel_figure(drawn)))
    FOLDER.joinpath("lstm_gates.png").write_bytes(figures.png(gates_figure(batch, trace)))
    text = json.dumps(_plain(numbers), indent=1, ensure_ascii=False)
    FOLDER.joinpath("lstm.json").write_text(f"{text}\n")


def _plain(value: Any) -> Any:
    """Returns mappings and sequences of numbers for JSON, to six digits."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if np.ndim(value):
        return [_plain(part) for part in value]
    return float(f"{value:.6g}")


if __name__ == "__main__":
    main()
