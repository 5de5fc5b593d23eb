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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes

from experiments.common import networks, runner, tuning
from experiments.common.flags import LENGTH, Config, need, setting
from experiments.common.gradient_paths import ALONE, LARGEST, NETWORKS, WHOLE, gradients, paths
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax import tasks
from lstm_jax.nn import SequenceSpec
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import of_parts
from lstm_jax.report.figures import Style
from lstm_jax.report.statistics import Estimate
from lstm_jax.search import continued
from lstm_jax.tasks import Task, base
from lstm_jax.training import Trials, initial, keys

LINEAR = 0.9  # of the variance of a logarithm that a line explains
FLAT = 1e-6  # relative change over all lags: float32's precision
POINTS = 25  # lags on record
VANISHING = {"rnn_small": "vanishes", "rnn": "vanishes", "rnn_large": "explodes"}  # of the claims
HOCHREITER = "exponentially in the lag (Hochreiter 1991; Bengio, Simard & Frasconi 1994)"
CAROUSEL = "a factor of exactly 1 (Hochreiter & Schmidhuber 1997)"
CLOSED = "along the cell, of the biases alone"


STYLES = {
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
        return base.never_solved(tasks.Recall(lag=self.lag + 1))

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


def plan(config: GradientFlow, records: Sequence[Record]) -> list[Group]:
    """Returns for each network a group to the middle stage, and its continuation."""
    groups = []
    trials = tuning.trials(config.reported, [config.learning_rate])
    for name in config.networks:
        network, task = NETWORKS[name], config.task
        cell, start = network.cell(config.hidden), network.start(task)
        model = networks.spec(cell, task, config.engine, **start)
        measure = functools.partial(gradients, network, model, task, tuple(config.lags))
        first = Group(
            f"{name}-{config.first}", task, model, config.first, config.batch_size, trials, "test",
            save_state=True, measure=functools.partial(before_and_after, model, measure, config),
        )  # fmt: skip
        last = first._replace(
            name=f"{name}-{config.steps}", steps=config.steps, save_state=False,
            initial_state=functools.partial(continued, first),
            measure=functools.partial(after, measure, config),
        )  # fmt: skip
        groups += [first, last]
    return groups


def before_and_after(
    model: SequenceSpec, measure: Callable[..., list[Record]], config: GradientFlow,
    params: Any, trials: Trials,
) -> list[Record]:  # fmt: skip
    """Returns the measurements before the first update and at the middle stage."""

    def begin_one(trial):
        return model.init(keys(trial).init, **initial(trial))

    begin = jax.jit(lambda trials: jax.lax.map(begin_one, trials))
    start, now = measure(begin(trials), trials), measure(params, trials)
    return [{"flow": {"0": a, str(config.first): b}} for a, b in zip(start, now, strict=True)]


def after(
    measure: Callable[..., list[Record]], config: GradientFlow, params: Any, trials: Trials
) -> list[Record]:
    """Returns the measurements at the last stage."""
    return [{"flow": {str(config.steps): flow}} for flow in measure(params, trials)]


def measured(
    config: GradientFlow, records: Sequence[Record], name: str, stage: int
) -> list[Mapping[str, Any]]:
    """Returns the measurements of each trial of a network at a stage."""
    group = f"{name}-{max(stage, config.first)}"
    return [r["flow"][str(stage)] for r in ledger.results(records, group)]


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
    network, results = NETWORKS[name], measured(config, records, name, stage)
    found = [one[paths(name)[path]] for one in results]
    tested = ledger.results(records, f"{name}-{stage}")
    right = [r["test_correct"] / r["test_n"] for r in tested]
    expected = None
    if path == ALONE and stage == 0 and network.keep:
        expected = float(network.keep(np.array([config.lag]), config.task.length)[0])
    explained = known([one["explained"] for one in found])
    line = {
        "network": network.label,
        "updates": stage,
        "path": path,
        "slope": statistics.interval([one["slope"] for one in found]),
        "log_linear": float(np.mean(explained)) if explained else None,
        f"log10_left_at_{config.lag}": statistics.interval([one["log10"][-1] for one in found]),
        "log10_of_closed_form": None if expected is None else math.log10(expected),
        "ripple": max(known([one["ripple"] for one in found]), default=None),
        "test_accuracy": float(np.mean(right)) if right else None,
    }
    return {**line, "verdict": verdict(line["slope"], line["log_linear"], line["ripple"])}


def verdict(slope: Estimate, explained: float | None, ripple: float | None) -> str | None:
    """Returns "flat", "vanishes", "explodes" or "neither", and whether log-linearly."""
    if math.isnan(slope.low) or ripple is None:
        return None
    if ripple <= FLAT:
        return "flat"
    if slope.low <= 0 <= slope.high:
        return "neither"
    word = "vanishes" if slope.high < 0 else "explodes"
    return f"{word}, log-linear" if explained is not None and explained >= LINEAR else word


def known(values: Sequence[float | None]) -> list[float]:
    """Returns the finite values; diverged trials have null on record."""
    return [value for value in values if value is not None]


def claims(config: GradientFlow, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on the tanh RNN, the carousel and the bias-1 LSTM."""
    at = {(r["network"], r["updates"], r["path"]): r for r in rows}
    left = f"log10_left_at_{config.lag}"
    found = []
    for name, word in VANISHING.items():
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


def draw(config: GradientFlow, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws norms at the start, through training, and the Jacobians."""
    every = {name: paths(name)[WHOLE] for name in config.networks}
    cells = {name: ALONE for name in config.networks if ALONE in paths(name)}
    largest = dict.fromkeys(config.networks, LARGEST)
    over = "against the lag, geometric mean over seeds with Student's 95 % interval."
    norm = "Through training: ||dL/dmemory|| along {} " + over
    norm += " Dotted: the product of initial gates along the cell, from biases alone."
    size = "The largest singular value of d(h, c)_T / d(h, c)_t, the growth of the fastest change, "
    shown = {"training": (every, norm.format("every path"))}
    shown |= {"cell": (cells, norm.format("the cell alone"))} if cells else {}
    shown |= {"jacobians": (largest, size + over)}
    return [
        start(config, records),
        *(through_training(name, config, records, *given) for name, given in shown.items()),
    ]


def start(config: GradientFlow, records: Sequence[Record]) -> Picture:
    """Draws norms against lag before training, with the closed forms."""
    figure, ((ungated, alone, gated),) = figures.canvas(1, 3, panel=(5.4, 5))
    for name in config.networks:
        axes = gated if "lstm" in name or name == "carousel" else ungated
        line(axes, config, records, name, 0, paths(name)[WHOLE], STYLES[name])
        if ALONE in paths(name):
            line(alone, config, records, name, 0, ALONE, STYLES[name])
            closed_form(alone, config, name)
    titles = "no separate cell, every path", "along the cell, gates held", "LSTMs, every path"
    for axes, title in zip((ungated, alone, gated), titles, strict=True):
        axes.set(title=title, yscale="log", xlabel="steps back (lag)", ylim=limits(config))
    ungated.set_ylabel("norm of the gradient,\nrelative to lag 0")
    figures.legend(figure, ungated, gated, alone, columns=5)
    caption = (
        "Before training: ||dL/dmemory|| against the lag, relative to lag 0, geometric mean "
        "over seeds with Student's 95 % interval. Dotted: expected of the biases alone; measured "
        "norms are larger, since gates differ from their bias. Curves may leave the figure below."
    )
    return Picture("start", caption, figure)


def through_training(
    picture: str, config: GradientFlow, records: Sequence[Record], shown: Mapping[str, str],
    caption: str,
) -> Picture:  # fmt: skip
    """Draws the path, or `LARGEST`, of each network against lag, stage by stage."""
    label = "largest singular value" if picture == "jacobians" else "norm, relative to lag 0"
    figure, panels = figures.grid(len(shown), 3, (5, 4))
    styles = figures.styles([f"{stage} updates" for stage in config.stages])
    for place, (axes, (name, path)) in enumerate(zip(panels, shown.items(), strict=True)):
        for stage, (words, style) in zip(config.stages, styles.items(), strict=True):
            line(axes, config, records, name, stage, path, style, words)
        if path != LARGEST:
            closed_form(axes, config, name)
        axes.set(title=NETWORKS[name].label, yscale="log", ylim=limits(config))
        axes.set(xlabel="steps back (lag)", ylabel=label if place % 3 == 0 else None)
    figures.legend(figure, *panels, columns=5)
    return Picture(picture, caption, figure)


def limits(config: GradientFlow) -> tuple[float, float]:
    """Returns axis limits between sigmoid(1)^lag and the large RNN's growth."""
    return 10 ** (-0.15 * config.lag - 1), 10 ** (0.08 * config.lag + 1)


def line(
    axes: Axes, config: GradientFlow, records: Sequence[Record], name: str, stage: int, path: str,
    style: Style, label: str | None = None,
) -> None:  # fmt: skip
    """Draws the norm against lag, mean of logarithms over seeds with interval."""
    curves = [one[path]["log10"] for one in measured(config, records, name, stage)]
    means = [statistics.interval(values) for values in zip(*curves, strict=True)]
    powers = [Estimate(*(10.0**part for part in mean)) for mean in means]
    figures.band(axes, config.lags, powers, style, label or NETWORKS[name].label)


def closed_form(axes: Axes, config: GradientFlow, name: str) -> None:
    """Draws the norm along the cell from initial biases alone."""
    keep = NETWORKS[name].keep
    if keep is not None:
        lags = np.arange(config.lag + 1)
        left = keep(lags, config.task.length)
        axes.plot(lags, left, "k:", linewidth=2, zorder=5, label=CLOSED)


EXPERIMENT = Experiment("gradient_flow", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
