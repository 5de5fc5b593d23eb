"""Gradients vanish in a tanh RNN and not in the carousel of 1997; in an LSTM the bias decides.

Networks learn to recall a marked symbol. Before, during and after training the loss of test
sequences is differentiated with respect to the state at each time step: the whole gradient, and the
gradient along the cell alone. A slope is fitted to the logarithm of the norm against the lag. An
RNN's claim reproduces if the slope's interval excludes zero and a line explains 90 % of the
variance.

Command: scripts/run gradient_flow
Cost: --quick a minute, by default 4 minutes, both on two cores; --scale=paper is for a GPU
Expect: slopes at the start, in nats a time step (all claims reproduce)
  tanh RNN, small, orthogonal and large weights  -0.75, -0.14, +0.12
  along the cell, forget bias of 1 and of 5      -0.27, -0.008
  along the carousel                             0, to the last bit, at every stage
Method: docs/experiments.md#gradient_flow
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import networks, runner
from experiments.common.flags import LENGTH, Config, need, setting
from experiments.common.plan import Experiment
from lstm_jax import cells, diagnostics, tasks
from lstm_jax.cells import Cell
from lstm_jax.nn import SequenceSpec
from lstm_jax.nn.initializers import chrono, gate_bias, orthogonal
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import Claim, of_parts
from lstm_jax.report.figures import Picture
from lstm_jax.report.ledger import Record
from lstm_jax.report.statistics import Estimate
from lstm_jax.report.tables import Row
from lstm_jax.search import Group, continued
from lstm_jax.tasks import Task
from lstm_jax.tasks.base import endless
from lstm_jax.training.trials import Trials, keys, make_trials
from lstm_jax.types import Array, Batch

CLIP = 1.0
UNKNOWN = Estimate(math.nan, math.nan, math.nan)
LINEAR = 0.9  # of the variance of a logarithm that a line explains
FLAT = 1e-6  # relative change over all lags: float32's precision
SEQUENCES = 16  # that norms are averaged over
MATRICES = 2  # of these, those whose Jacobians are decomposed
POINTS = 25  # lags on record
PLAIN = {"rnn_small": "vanishes", "rnn": "vanishes", "rnn_large": "explodes"}  # of the claims
HOCHREITER = "exponentially in the lag (Hochreiter 1991; Bengio, Simard & Frasconi 1994)"
CAROUSEL = "a factor of exactly 1 (Hochreiter & Schmidhuber 1997)"
CLOSED = "along the cell, of the biases alone"
WHOLE, ALONE = "every path", "along the cell"


@dataclasses.dataclass(frozen=True)
class CutLSTM(cells.LSTM):
    """The LSTM with a gradient along the cell alone: h' = LSTM(x, constant h, c)."""

    def feedback(self, state):
        """Returns h as a constant."""
        return jax.lax.stop_gradient(state.h)


@dataclasses.dataclass(frozen=True)
class CutGRU(cells.GRU):
    """The GRU with a gradient through z * h alone."""

    def feedback(self, state):
        """Returns h as a constant."""
        return jax.lax.stop_gradient(state.h)


class Network(NamedTuple):
    """A network and its measured paths.

    Attributes:
      label: its name in figures.
      cell: the trained cell, of H.
      whole: the same with its whole gradient.
      alone: the same with the gradient along the cell alone; None where it has no such path.
      start: (task) -> initialisers.
      keep: (lags [K], length) -> the factor of a constant memory after so many steps, from the
        initial biases alone; None where biases do not determine it.
    """

    label: str
    cell: Callable[[int], Cell]
    whole: Callable[[int], Cell]
    alone: Callable[[int], Cell] | None
    start: Callable[[Task], dict[str, Any]] = lambda task: {}
    keep: Callable[[np.ndarray, int], np.ndarray] | None = None


def rnn(name: str, scale: float) -> Network:
    """Returns a tanh RNN with orthogonal recurrent weights times `scale`."""
    start = {"w_h": orthogonal(scale)}
    return Network(f"RNN, {name} weights", cells.RNN, cells.RNN, None, lambda task: start)


def lstm(bias: float) -> Network:
    """Returns an LSTM with one forget bias: sigmoid(bias)^lag remains along the cell."""
    start = {"b": gate_bias(f=bias)}
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
        lambda task: {"b": chrono(task.length)}, kept_by_chrono,
    ),
}  # fmt: skip
LOOKS = {
    name: {"color": c, "marker": m, "linestyle": "-"}
    for name, c, m in zip(
        NETWORKS, (*figures.COLOURS, "#777777"), (*figures.MARKERS, "p"), strict=True
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientFlow(Config):
    """Which networks are measured, at which lags, and after how many updates."""

    seeds: int = setting(10, "trials for each network, each from its own seed")
    steps: int = setting(1000, "updates before the last measurement")
    first: int = setting(100, "updates before the middle measurement")
    networks: tuple[str, ...] = setting(tuple(NETWORKS), "networks to train", choices=NETWORKS)
    lag: int = setting(100, "the largest measured lag", (3, LENGTH[1]))
    learning_rate: float = setting(3e-3, "learning rate of Adam, for all networks")
    batch_size: int = setting(16, "sequences an update")

    def __post_init__(self):
        super().__post_init__()
        right = f"need fewer than --steps={self.steps}"
        need(self.first < self.steps, "first", self.first, right)
        need(self.hidden % 2 == 0, "hidden", self.hidden, "need an even number, for blocks of two")

    @property
    def task(self) -> Task:
        """Returns recall, with `lag` steps from the mark's successor to the last but one."""
        return endless(tasks.make("recall", lag=self.lag + 1))

    @property
    def stages(self) -> tuple[int, ...]:
        """The updates before each measurement."""
        return (0, self.first, self.steps)

    @property
    def lags(self) -> list[int]:
        """Returns the lags on record."""
        return sorted({round(lag) for lag in np.linspace(0, self.lag, POINTS)})


SCALES = {
    "quick": GradientFlow(
        networks=("rnn", "rnn_large", "carousel", "lstm_1", "lstm_5"),
        seeds=4, lag=30, first=30, steps=150, hidden=16,
    ),
    "small": GradientFlow(),
    "paper": GradientFlow(seeds=20, lag=1000, steps=10_000, first=1000, hidden=128),
}  # fmt: skip


# Training. ----------------------------------------------------------------------------------------


def plan(config: GradientFlow, records: Sequence[Record]) -> list[Group]:
    """Returns for each network a group to the middle stage, and its continuation."""
    del records
    groups, seeds = [], range(config.seed, config.seed + config.seeds)
    trials = make_trials(seed=seeds, learning_rate=config.learning_rate, clip=CLIP)
    for name in config.networks:
        network, task, H = NETWORKS[name], config.task, config.hidden
        sizes = task.input_size, task.output_size, task.readout
        model = SequenceSpec(network.cell(H), *sizes, engine=config.engine, **network.start(task))
        looks = functools.partial(look, network, model, config)
        first = Group(
            f"{name}-{config.first}", task, model, config.first, config.batch_size, trials, "test",
            save_state=True, measure=functools.partial(before_and_after, model, looks, config),
        )  # fmt: skip
        last = first._replace(
            name=f"{name}-{config.steps}", steps=config.steps, save_state=False,
            initial_state=functools.partial(continued, first),
            measure=functools.partial(after, looks, config),
        )  # fmt: skip
        groups += [first, last]
    return groups


def before_and_after(
    model: SequenceSpec, looks: Callable[..., list[Record]], config: GradientFlow,
    params: Any, trials: Trials,
) -> list[Record]:  # fmt: skip
    """Returns the measurements before the first update and at the middle stage."""
    begin = jax.jit(lambda trials: jax.lax.map(lambda t: model.init(keys(t).init, t), trials))
    start, now = looks(begin(trials), trials), looks(params, trials)
    return [{"flow": {"0": a, str(config.first): b}} for a, b in zip(start, now, strict=True)]


def after(
    looks: Callable[..., list[Record]], config: GradientFlow, params: Any, trials: Trials
) -> list[Record]:
    """Returns the measurements at the last stage."""
    return [{"flow": {str(config.steps): seen}} for seen in looks(params, trials)]


# Looking. -----------------------------------------------------------------------------------------


def look(
    network: Network, model: SequenceSpec, config: GradientFlow, params: Any, trials: Trials
) -> list[Record]:
    """Returns the measured gradients of each trial, as a mapping.

    For each path and state {"log10": of the norms at the lags on record, "slope": nats a step,
    "explained": share of the variance that the line explains, "ripple": largest relative change at
    any lag in any sequence}; and {"log10"} of the largest singular values.
    """
    H, task, lags = config.hidden, config.task, tuple(config.lags)
    whole, alone = network.whole(H), network.alone(H) if network.alone else None
    draw = jax.jit(jax.vmap(lambda trial: task.sample(keys(trial).evaluation, SEQUENCES, "test")))
    x, y, *_ = jax.device_get(draw(trials))
    layer, head = networks.recurrent(model, params), params["head"]
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: np.asarray(a, np.float64), (layer, head, x))
        found = jax.device_get(_measured(whole, alone, task, lags, exact, y))
    short = jax.tree.map(np.float32, found)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], short) for i in range(len(trials.seed))]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _measured(
    whole: Cell, alone: Cell | None, task: Task, lags: tuple[int, ...], exact: Any, y: Array
) -> dict[str, dict[str, Array]]:
    """Returns `look`, with leaves [R, ...]."""

    def of_one(args):
        (params, head, x), y = args

        def loss(h):
            return task.loss(h[-1] @ head["kernel"] + head["bias"][None], Batch(x, y))

        every = diagnostics.gradient_norms(whole, params, x, loss)
        norms = {
            f"{WHOLE}, {name}": getattr(every, name) for name in whole.states if name in ("h", "c")
        }
        if alone is not None:
            cut = diagnostics.gradient_norms(alone, params, x, loss)
            norms[ALONE] = getattr(cut, memory(alone))
        J = diagnostics.jacobians(whole, params, x[:, :MATRICES])[np.array(lags)]
        largest = jnp.linalg.svd(J, compute_uv=False)[..., 0]
        seen = {name: _line(values[1:], lags) for name, values in norms.items()}
        return {**seen, "largest": {"log10": jnp.mean(jnp.log10(largest), axis=1)}}

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


def seen(
    config: GradientFlow, records: Sequence[Record], name: str, stage: int
) -> list[Mapping[str, Any]]:
    """Returns the measurements of each trial of a network at a stage."""
    group = f"{name}-{max(stage, config.first)}"
    return [r["flow"][str(stage)] for r in ledger.results(records, group)]


def paths(name: str, hidden: int = 2) -> dict[str, str]:
    """Returns the paths to a network's memory by their name in records."""
    network = NETWORKS[name]
    every = {WHOLE: f"{WHOLE}, {memory(network.whole(hidden))}"}
    return every | ({ALONE: ALONE} if network.alone else {})


# Telling. -----------------------------------------------------------------------------------------


def summarise(config: GradientFlow, records: Sequence[Record]) -> list[Row]:
    """Returns for each network, stage and path the last norm, slope and verdict."""
    return [
        row(config, records, name, stage, path)
        for name in config.networks
        for stage in config.stages
        for path in paths(name)
    ]


def row(config: GradientFlow, records: Sequence[Record], name: str, stage: int, path: str) -> Row:
    """Returns one line of the table."""
    network, results = NETWORKS[name], seen(config, records, name, stage)
    told = [one[paths(name)[path]] for one in results]
    asked = ledger.results(records, f"{name}-{stage}")
    right = [r["test_correct"] / r["test_n"] for r in asked]
    expected = None
    if path == ALONE and stage == 0 and network.keep:
        expected = float(network.keep(np.array([config.lag]), config.task.length)[0])
    explained = finite([one["explained"] for one in told])
    line = {
        "network": network.label,
        "updates": stage,
        "path": path,
        "slope": interval([one["slope"] for one in told]),
        "log_linear": float(np.mean(explained)) if explained else None,
        f"log10_left_at_{config.lag}": interval([one["log10"][-1] for one in told]),
        "log10_of_closed_form": None if expected is None else math.log10(expected),
        "ripple": max(finite([one["ripple"] for one in told]), default=None),
        "test_accuracy": float(np.mean(right)) if right else None,
    }
    return {**line, "verdict": verdict(line["slope"], line["log_linear"], line["ripple"])}


def verdict(slope: Estimate, explained: float | None, ripple: float | None) -> str | None:
    """Returns "flat", "vanishes", "explodes" or "neither", and whether log-linearly."""
    if math.isnan(slope.value) or ripple is None:
        return None
    if ripple <= FLAT:
        return "flat"
    if slope.low <= 0 <= slope.high:
        return "neither"
    word = "vanishes" if slope.high < 0 else "explodes"
    return f"{word}, log-linear" if explained is not None and explained >= LINEAR else word


def finite(values: Sequence[float | None]) -> list[float]:
    """Returns the finite values; diverged trials have null on record."""
    return [value for value in values if value is not None]


def interval(values: Sequence[float | None]) -> Estimate:
    """Returns mean and t-interval of the numbers; nan for fewer than two."""
    numbers = finite(values)
    return statistics.t_interval(numbers) if len(numbers) >= 2 else UNKNOWN


def claims(config: GradientFlow, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on the tanh RNN, the carousel and the bias-1 LSTM."""
    at = {(r["network"], r["updates"], r["path"]): r for r in rows}
    left = f"log10_left_at_{config.lag}"
    found = []
    for name, word in PLAIN.items():
        if name in config.networks:
            mine = at[NETWORKS[name].label, 0, WHOLE]
            held = [mine["verdict"] == f"{word}, log-linear"]
            said = f"In an {NETWORKS[name].label}, the gradient {word} exponentially with the lag"
            ours = f"{mine['slope']} nats a step; a line explains {mine['log_linear']:.1%}"
            found.append(Claim(said, ours, HOCHREITER, of_parts(held)))
    if "carousel" in config.networks:
        mine = [at[NETWORKS["carousel"].label, stage, ALONE] for stage in config.stages]
        said = f"The truncated error in the carousel is the same at all {config.lag} lags"
        ours = f"largest relative change {max(r['ripple'] for r in mine):.1g}"
        held = [r["verdict"] == "flat" for r in mine]
        found.append(Claim(said, ours, CAROUSEL, of_parts(held)))
    if "lstm_1" in config.networks:
        mine = at[NETWORKS["lstm_1"].label, 0, ALONE]
        said = "An LSTM with a forget bias of 1 starts with a gradient that vanishes along its cell"
        ours = f"10^{mine[left].value:.1f} left at lag {config.lag}, of the bias alone 10^"
        ours += f"{mine['log10_of_closed_form']:.1f}"
        found.append(Claim(said, ours, "-", of_parts([mine["verdict"].startswith("vanishes")])))
    return found


# Drawing. -----------------------------------------------------------------------------------------


def draw(config: GradientFlow, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws norms at the start, through training, and the Jacobians."""
    del rows
    pictures = [start(config, records), training(config, records), matrices(config, records)]
    if having := [name for name in config.networks if ALONE in paths(name)]:
        pictures.insert(2, along_the_cell(config, records, having))
    return pictures


def start(config: GradientFlow, records: Sequence[Record]) -> Picture:
    """Draws norms against lag before training, with the closed forms."""
    figure, ((plain, alone, every),) = figures.canvas(1, 3, panel=(5.6, 5))
    for name in config.networks:
        gated = "lstm" in name or name == "carousel"
        line(every if gated else plain, config, records, name, 0, paths(name)[WHOLE], LOOKS[name])
        if ALONE in paths(name):
            line(alone, config, records, name, 0, ALONE, LOOKS[name])
            closed_form(alone, config, name)
    titles = "no separate cell, every path", "along the cell, gates held", "LSTMs, every path"
    for axes, title in zip((plain, alone, every), titles, strict=True):
        axes.set(title=title, yscale="log", xlabel="steps back (lag)", ylim=limits(config))
    plain.set_ylabel("norm of the gradient,\nrelative to lag 0")
    legend(figure, (plain, every, alone))
    caption = (
        "Before training: ||dL/dmemory|| against the lag, relative to lag 0, geometric mean "
        "over seeds with Student's 95 % interval. Along the cell (middle) a bias-1 LSTM vanishes: "
        f"of its bias alone sigmoid(1)^{config.lag} = {1 / (1 + math.exp(-1)) ** config.lag:.1e} "
        "is expected (dotted, one for each network). Measured norms are larger: gates differ from "
        "their bias, and the largest gates dominate high powers. Curves may leave the figure below."
    )
    return Picture("start", caption, figure)


def training(config: GradientFlow, records: Sequence[Record]) -> Picture:
    """Draws norms along every path, stage by stage, a panel for each network."""
    figure, panels = by_network(config, config.networks, "norm, relative to lag 0")
    for name, axes in panels.items():
        stages(axes, config, records, name, paths(name)[WHOLE])
        closed_form(axes, config, name)
    legend(figure, panels.values())
    caption = (
        "Through training: ||dL/dmemory|| along every path against the lag, relative to lag 0, "
        "geometric mean over seeds with Student's 95 % interval. Dotted: the product of initial "
        "gates along the cell, from biases alone."
    )
    return Picture("training", caption, figure)


def along_the_cell(
    config: GradientFlow, records: Sequence[Record], names: Sequence[str]
) -> Picture:
    """Draws norms along the cell, for networks that have one."""
    figure, panels = by_network(config, names, "norm, relative to lag 0")
    for name, axes in panels.items():
        stages(axes, config, records, name, ALONE)
        closed_form(axes, config, name)
    legend(figure, panels.values())
    caption = (
        "Through training: ||dL/dmemory|| along the cell alone (gates held) against the lag, "
        "relative to lag 0, geometric mean over seeds with Student's 95 % interval. Dotted: the "
        "product of initial gates, from biases alone."
    )
    return Picture("cell", caption, figure)


def matrices(config: GradientFlow, records: Sequence[Record]) -> Picture:
    """Draws the Jacobian's largest singular value at each stage."""
    figure, panels = by_network(config, config.networks, "largest singular value")
    for name, axes in panels.items():
        stages(axes, config, records, name, "largest")
    legend(figure, panels.values())
    caption = (
        "The largest singular value of d(h, c)_T / d(h, c)_t, the growth of the fastest "
        "change, against T - t: geometric mean over seeds with Student's 95 % interval."
    )
    return Picture("jacobians", caption, figure)


def by_network(
    config: GradientFlow, names: Sequence[str], what: str
) -> tuple[Figure, dict[str, Axes]]:
    """Returns a figure with a panel for each network."""
    columns = min(4, len(names))
    figure, panels = figures.canvas(math.ceil(len(names) / columns), columns, panel=(4.6, 4))
    for axes in panels.flat[len(names) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel(what)
    named = dict(zip(names, panels.flat, strict=False))
    for name, axes in named.items():
        axes.set(title=NETWORKS[name].label, yscale="log", ylim=limits(config))
        axes.set_xlabel("steps back (lag)")
    return figure, named


def limits(config: GradientFlow) -> tuple[float, float]:
    """Returns axis limits between sigmoid(1)^lag and the large RNN's growth."""
    return 10 ** (-0.15 * config.lag - 1), 10 ** (0.08 * config.lag + 1)


def legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """Draws one legend for all panels, the closed form last."""
    told = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        told |= dict(zip(labels, handles, strict=True))
    labels = sorted(told, key=lambda label: label == CLOSED)
    handles = [told[label] for label in labels]
    figure.legend(handles, labels, loc="outside upper center", ncols=min(5, len(labels)))


def stages(
    axes: Axes, config: GradientFlow, records: Sequence[Record], name: str, path: str
) -> None:
    """Draws one curve for each stage."""
    looks = figures.styles([f"{stage} updates" for stage in config.stages])
    for stage, (label, look) in zip(config.stages, looks.items(), strict=True):
        line(axes, config, records, name, stage, path, look, label)


def line(
    axes: Axes, config: GradientFlow, records: Sequence[Record], name: str, stage: int, path: str,
    look: Mapping[str, Any], label: str | None = None,
) -> None:  # fmt: skip
    """Draws the norm against lag, mean of logarithms over seeds with interval."""
    curves = [one[path]["log10"] for one in seen(config, records, name, stage)]
    means = [interval(values) for values in zip(*curves, strict=True)]
    powers = [Estimate(*(10.0**part for part in mean)) for mean in means]
    figures.band(axes, config.lags, powers, look, label or NETWORKS[name].label)


def closed_form(axes: Axes, config: GradientFlow, name: str) -> None:
    """Draws the norm along the cell from initial biases alone."""
    keep = NETWORKS[name].keep
    if keep is not None:
        lags = np.arange(config.lag + 1)
        left = keep(lags, config.task.length)
        axes.plot(lags, left, "k:", linewidth=2, zorder=5, label=CLOSED)


EXPERIMENT = Experiment("gradient_flow", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    sys.exit(runner.main(EXPERIMENT, sys.argv))
