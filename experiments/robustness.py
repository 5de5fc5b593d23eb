"""LSTMs learn to bridge a lag over a broad range of learning rates and gate biases.

Three networks learn adding and recall from settings drawn at random: the LSTM of 1997, an LSTM and
a tanh RNN (Hochreiter & Schmidhuber 1997). The claim reproduces on a task if the learning rates
that work span one decade or more in every quarter of the range of the input- and of the output-gate
bias. Wilson's whole 95 % interval must lie above the decade.

Command: scripts/run robustness
Cost: --quick a minute, by default 19 minutes, both on two cores; --scale=paper is for a GPU
Expect: share of 320 settings that solve the task, in %
                adding                    recall
  LSTM of 1997  41 (does not reproduce)   73 (reproduces)
  LSTM          38 (undecided)            33 (does not reproduce)
  tanh RNN      0                         4
Method: docs/experiments.md#robustness
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from experiments.common import networks, runner, tuning
from experiments.common.flags import Config, naming, need, setting
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax import cells, tasks
from lstm_jax.cells import Cell
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import FAILS, REPRODUCES, UNDECIDED, exceeds, of_parts
from lstm_jax.report.space import Parameter
from lstm_jax.report.statistics import SOLVED, Estimate, Share, is_solved
from lstm_jax.search import space as spaces
from lstm_jax.tasks import Task
from lstm_jax.training import Trials, make_trials

BROAD = 1.0  # decades of learning rate


@dataclasses.dataclass(frozen=True)
class Range(Parameter):
    """The range of one hyperparameter, uniform or logarithmic, and its bins."""

    bins: int = 4

    @property
    def edges(self) -> np.ndarray:
        """The ends of the bins, one more than the bins."""
        return self.numbers(np.linspace(0, 1, self.bins + 1))

    @property
    def middles(self) -> np.ndarray:
        """The middle of each bin."""
        return self.numbers((np.arange(self.bins) + 0.5) / self.bins)

    def bin(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Returns the bin of each value; the outer ones take rounding errors."""
        return np.searchsorted(self.edges[1:-1], values, side="right")


RANGES = {  # by the name that records give the setting
    "learning_rate": Range("learning rate", spaces.Log(10**-3.5, 1.0), bins=7),
    "gate_bias_i": Range("input-gate bias", spaces.Uniform(-6.0, 2.0)),
    "gate_bias_o": Range("output-gate bias", spaces.Uniform(-6.0, 2.0)),
    "gate_bias_f": Range("forget-gate bias", spaces.Uniform(0.0, 6.0)),
    "init_scale": Range("scale of the start", spaces.Log(0.5, 2.0)),
}
DECADES = math.log10(RANGES["learning_rate"].high / RANGES["learning_rate"].low)
BROADLY = "no fine tuning is needed (Hochreiter & Schmidhuber 1997, section 6)"
CLAIMED = ("gate_bias_i", "gate_bias_o")
GATES = (*CLAIMED, "gate_bias_f")


class Network(NamedTuple):
    """A network: its name, its cell for H, and its random hyperparameters."""

    label: str
    cell: Callable[[int], Cell]
    settings: tuple[str, ...]


NETWORKS = {
    "blocks": Network("LSTM of 1997", lambda h: cells.MemoryBlocks(h, size=2), CLAIMED),
    "lstm": Network("LSTM", cells.LSTM, GATES),
    "rnn": Network("tanh RNN", lambda h: cells.RNN(2 * h), ("init_scale",)),
}
STYLES = [{"color": colour, "marker": "o"} for colour in figures.COLOURS[: len(NETWORKS)]]
TASKS: dict[str, Callable[[int], Task]] = {
    "adding": lambda lag: tasks.Adding1997(lag),
    "recall": lambda lag: tasks.Recall(lag=lag),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness(Config):
    """How many settings of each network try which tasks, and for how long."""

    seeds: int = setting(320, "settings drawn for each network and task, each with its own seed")
    steps: int = setting(2500, "updates of a trial")
    hidden: int = setting(16, "hidden units of an LSTM, an even number; the RNN has twice as many")
    tasks: tuple[str, ...] = setting(tuple(TASKS), "tasks to learn", choices=TASKS)
    lag: int = setting(50, "steps to remember; of adding, those of the shortest sequence")
    batch_size: int = setting(16, "sequences an update")

    def __post_init__(self):
        super().__post_init__()
        need(self.hidden % 2 == 0, "hidden", self.hidden, "need an even number, for blocks of two")
        for name in self.tasks:
            with naming("lag", self.lag):
                TASKS[name](self.lag)


SCALES = {
    "quick": Robustness(seeds=64, tasks=("recall",), lag=10, steps=600),
    "small": Robustness(),
    "paper": Robustness(seeds=1024, lag=100, steps=10_000, hidden=64, batch_size=64),
}


def plan(config: Robustness, records: Sequence[Record]) -> list[Group]:
    """Returns all settings of each task and network as one group."""
    groups = []
    for problem, (name, network) in product(config.tasks, NETWORKS.items()):
        task, cell = TASKS[problem](config.lag), network.cell(config.hidden)
        model = networks.spec(cell, task, config.engine)
        shared = task, model, config.steps, config.batch_size
        groups.append(Group(f"{problem}-{name}", *shared, drawn(network, config), "test"))
    return groups


def drawn(network: Network, config: Robustness) -> Trials:
    """Returns the settings of a network; trial i depends on (seed, i) alone.

    The numbers of trial i are drawn in the order of the network's settings, learning rate first, so
    that both LSTMs have the same learning rates and input- and output-gate biases.
    """
    names = ("learning_rate", *network.settings)
    rngs = [np.random.default_rng((config.seed, i)) for i in range(config.seeds)]
    shares = np.array([rng.random(len(names)) for rng in rngs]).T
    values = {name: RANGES[name].numbers(u) for name, u in zip(names, shares, strict=True)}
    return make_trials(
        seed=config.reported,
        learning_rate=values["learning_rate"],
        clip=tuning.CLIP,
        init_scale=values.get("init_scale", 1.0),
        gate_bias={name[-1]: values[name] for name in GATES if name in values},
    )


def summarise(config: Robustness, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each task and network: its working range and the verdict."""
    rows = []
    for task in config.tasks:
        tried = {name: ledger.group(records, f"{task}-{name}") for name in NETWORKS}
        rnn = max(quarters(tried["rnn"], "init_scale").values())
        rows += [row(task, name, tried[name], rnn) for name in NETWORKS]
    return rows


def row(task: str, name: str, records: Sequence[Record], rnn: Estimate) -> Row:
    """Returns one line of the table, from one group and the RNN's best quarter."""
    network, results = NETWORKS[name], ledger.results(records)
    solved = successes(results)
    steps = ledger.first_steps(records, "metric", SOLVED)
    fields = CLAIMED if name != "rnn" else network.settings
    parts = {k: width for field in fields for k, width in quarters(records, field).items()}
    share = statistics.wilson(sum(solved), len(solved))
    won = [step for step, yes in zip(steps, solved, strict=True) if yes]
    return {
        "task": task,
        "network": network.label,
        "trials": len(results),
        "solved": share,
        "decades": decades(share),
        "best_quarter": max(parts.values()),
        "worst_quarter": min(parts.values()),
        "steps_of_the_solved": statistics.median_steps(won).value if won else None,
        "diverged": sum(r["status"] == "diverged" for r in results),
        "broader_than_rnn": None if name == "rnn" else broader(decades(share), rnn),
        "claim": None if name == "rnn" else verdict(parts),
    }


def successes(results: Sequence[Record]) -> list[bool]:
    """Returns which trials solve their task."""
    return [is_solved(r["test_correct"], r["test_n"]) for r in results]


def decades(share: Share) -> Estimate:
    """Returns the mean width of the working learning rates, with its interval."""
    return Estimate(*(DECADES * part for part in (share.value, share.low, share.high)))


def quarters(records: Sequence[Record], field: str) -> dict[str, Estimate]:
    """Returns the working width in each nonempty bin of a field, by name."""
    found, over = shares(ledger.results(records), field), RANGES[field]
    ends = zip(over.edges[:-1], over.edges[1:], found, strict=True)
    return {f"{over.name} {a:.2g} to {b:.2g}": decades(s) for a, b, s in ends if s is not None}


def shares(results: Sequence[Record], field: str) -> list[Share | None]:
    """Returns the solved share in each bin of a setting; None for empty bins."""
    where = RANGES[field].bin([r[field] for r in results])
    solved = np.array(successes(results))
    inside = [solved[where == k] for k in range(RANGES[field].bins)]
    return [statistics.wilson(int(s.sum()), len(s)) if len(s) else None for s in inside]


def verdict(parts: Mapping[str, Estimate]) -> str:
    """Returns the verdict on one task, and the quarters that decide it where it is not positive."""
    narrow = [name for name, width in parts.items() if width.high < BROAD]
    if narrow:
        return f"{FAILS}: {', '.join(narrow)}"
    unclear = sum(width.low < BROAD for width in parts.values())
    return f"{UNDECIDED} in {unclear} of {len(parts)} quarters" if unclear else REPRODUCES


def broader(mine: Estimate, other: Estimate) -> str:
    """Returns whether one interval is above the other: yes, no, or undecided if they overlap."""
    return {REPRODUCES: "yes", FAILS: "no"}.get(exceeds(mine, other), UNDECIDED)


def claims(config: Robustness, rows: Sequence[Row]) -> list[Claim]:
    """Returns the sentence of 1997 for each LSTM, and the comparison with the RNN."""
    found = []
    for network in (NETWORKS["blocks"].label, NETWORKS["lstm"].label):
        mine = [row for row in rows if row["network"] == network]
        said = "learns over a broad range of learning rates and of input- and output-gate biases"
        ours = "; ".join(f"{r['task']}: {r['claim']} (solved {r['solved']})" for r in mine)
        held, failed = ([r["claim"].startswith(w) for r in mine] for w in (REPRODUCES, FAILS))
        verdict = of_parts(held) if any(held) or any(failed) else UNDECIDED
        found.append(Claim(f"The {network} {said}", ours, BROADLY, verdict))
        ours = "; ".join(f"{r['task']}: {r['broader_than_rnn']}" for r in mine)
        verdict = of_parts([r["broader_than_rnn"] == "yes" for r in mine])
        said = f"The {network} learns over a broader range than the tanh RNN"
        found.append(Claim(said, ours, "-", verdict))
    return found


def draw(config: Robustness, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Returns one figure for each task."""
    return [of_task(task, rows, records) for task in config.tasks]


def of_task(task: str, rows: Sequence[Row], records: Sequence[Record]) -> Picture:
    """Draws maps of success over the learning rate and another setting, and widths."""
    rows = [row for row in rows if row["task"] == task]
    results = {name: ledger.results(records, f"{task}-{name}") for name in NETWORKS}
    figure, panels = figures.canvas(2, 4, panel=(4.2, 4.2))
    maps = [("blocks", "gate_bias_i"), ("blocks", "gate_bias_o"), ("rnn", "init_scale")]
    maps += [("lstm", field) for field in NETWORKS["lstm"].settings]
    for axes, (name, field) in zip(panels[:, :3].flat, maps, strict=True):
        mesh = success_map(axes, results[name], field)
        axes.set_title(NETWORKS[name].label)
    figure.colorbar(mesh, ax=panels[:, :3], label="trials that solve it", aspect=40, pad=0.01)
    volumes(panels[0, 3], rows)
    widths(panels[1, 3], results)
    figures.legend(figure, panels[1, 3])
    shown = [f"{row['network']}: {row['claim']}" for row in rows if row["claim"] is not None]
    caption = (
        f"{task}: share of trials that solve it, over the learning rate and one other field, the "
        "remaining ones at random. Right: the share of all settings that work, and the decades of "
        "learning rate that work in each quarter of a bias (bars: Wilson's 95 % interval). A broad "
        f"range ({BROAD:g} decade or more) at every input- and output-gate bias? "
        f"{'; '.join(shown)}."
    )
    return Picture(task, caption, figure)


def success_map(axes: Axes, results: Sequence[Record], field: str) -> QuadMesh:
    """Draws the solved share by learning rate and another setting; empty is grey."""
    x, y = RANGES["learning_rate"], RANGES[field]
    tried, solved = counts(results, field)
    share = np.ma.masked_where(tried == 0, solved / np.maximum(tried, 1))
    mesh = axes.pcolormesh(x.edges, y.edges, share, vmin=0, vmax=1, cmap="cividis")
    axes.set(xscale="log", yscale="log" if y.is_log else "linear", xlabel=x.name, ylabel=y.name)
    if y.is_log:
        axes.set_yticks(y.edges, [f"{edge:.2g}" for edge in y.edges])
        axes.minorticks_off()
    axes.grid(False)
    axes.set_facecolor("0.9")
    return mesh


def counts(results: Sequence[Record], field: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the trials and the solved trials of each bin [field, learning rate]."""
    x, y = RANGES["learning_rate"], RANGES[field]
    place = y.bin([r[field] for r in results]), x.bin([r["learning_rate"] for r in results])
    tried, solved = np.zeros((2, y.bins, x.bins), int)
    np.add.at(tried, place, 1)
    np.add.at(solved, place, successes(results))
    return tried, solved


def volumes(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws the working share of the space, and that of the RNN's best scales."""
    shown = {row["network"]: row["solved"] for row in rows}
    shown["RNN, best scale"] = Estimate(*(width / DECADES for width in rows[-1]["best_quarter"]))
    figures.named_bars(axes, shown, dict(zip(shown, [*STYLES, STYLES[-1]], strict=True)))
    axes.set(title="all settings", ylabel="trials that solve it", ylim=(-0.02, 1.02))


def widths(axes: Axes, results: Mapping[str, Sequence[Record]]) -> None:
    """Draws the working decades of learning rate against each gate's bias."""
    lines = [(n, field) for n in ("blocks", "lstm") for field in NETWORKS[n].settings]
    for place, (name, field) in enumerate(lines):
        gate, over = GATES.index(field), RANGES[field]
        dress = {"marker": figures.MARKERS[gate], "linestyle": figures.DASHES[gate]}
        style = STYLES[list(NETWORKS).index(name)] | dress
        aside = 0.16 * (place - len(lines) // 2)  # side by side
        found = zip(over.middles, shares(results[name], field), strict=True)
        shown = [(middle + aside, decades(share)) for middle, share in found if share is not None]
        label = f"{NETWORKS[name].label}: {over.name.removesuffix('-gate bias')}"
        figures.error_bars(axes, [x for x, _ in shown], [y for _, y in shown], style, label)
    figures.level(axes, BROAD, "broad")
    axes.set(title="each quarter of a bias", xlabel="bias", ylabel="working decades of rate")
    axes.set(ylim=(-0.05, DECADES), xlim=(-6.2, 6.2), xticks=range(-6, 7, 3))


EXPERIMENT = Experiment("robustness", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
