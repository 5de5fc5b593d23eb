"""A hidden Markov model needs 2^k states to recall k bits; an LSTM needs at most k units.

The input is k random bits, 1 to 8 blanks and a cue; the answer is the bits again. A model made by
hand, models learned by EM and LSTMs answer. A size is enough if 99 % of the bits are right. "At
most k units" holds for each k by the median of the seeds.

Command: scripts/run hmm
Cost: --quick a minute, by default 8 minutes, both on two cores
Expect: sizes for k bits (reproduces, reproduces partly, reproduces partly)
  k                   1   2    3    4   8
  states by hand      6   16   36   76  1,276
  LSTM units, median  1   1    2    2   16
  states by EM        16  >64  >64
Method: docs/experiments.md#hmm
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from experiments.common import markov, networks, runner, tuning
from experiments.common.flags import Config, setting
from experiments.common.plan import Claim, Computed, Experiment, Group, Picture, Record, Row
from lstm_jax import tasks
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import UNDECIDED, of_parts
from lstm_jax.report.figures import Style

GAP = 8
ENOUGH = 0.99  # of the bits right
ROUNDING = 1e-6  # bits by which a model may seem to recall more than it can
MOST_BY_HAND = 8  # bits: 1,276 states, in matrices that are full
HAND, EM, LSTM = MODELS = ("HMM by hand", "HMM learnt by EM", "LSTM")
LOG_K = "log K bits in the state of an HMM (Brown & Hinton 2001)"
NO_CHOICE = (
    "in contrast to hidden Markov models LSTM does not require an a priori choice of a finite "
    "number of states (Hochreiter & Schmidhuber 1997)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hmm(Config):
    """How many bits, the sizes of models, and their training."""

    seeds: int = setting(5, "repetitions of everything, each with its own starts")
    steps: int = setting(3000, "updates of an LSTM")
    hidden: int = setting(16, "the most hidden units of an LSTM: 1, 2, 4, ... are tried")
    states: int = setting(64, "the most states of a learned HMM: 2, 4, 8, ... are tried", (2, 4096))
    bits: tuple[int, ...] = setting((1, 2, 3, 4, 8), "how many bits to recall", (1, MOST_BY_HAND))
    learnt_bits: int = setting(3, "the most bits for EM", (0, MOST_BY_HAND))
    restarts: int = setting(4, "random models that EM starts from, for each seed", (1, 1000))
    iterations: int = setting(400, "the most iterations of EM")
    learning_rates: tuple[float, ...] = setting((3e-3, 1e-2, 3e-2), "learning rates of an LSTM")
    batch_size: int = setting(16, "sequences an update")


SCALES = {
    "quick": Hmm(
        seeds=3, steps=600, hidden=4, states=16, bits=(1, 2, 4), learnt_bits=2, restarts=3,
        learning_rates=(3e-2,),
    ),
    "small": Hmm(),
    "paper": Hmm(
        seeds=10, steps=10_000, hidden=32, states=256, bits=(1, 2, 3, 4, 5, 6, 7, 8), learnt_bits=5,
        restarts=10, iterations=1000, learning_rates=(1e-3, 3e-3, 1e-2, 3e-2),
    ),
}  # fmt: skip


class Point(NamedTuple):
    """The results of one kind of model at one size and number of bits."""

    bits: int  # k
    model: str  # of `MODELS`
    size: int  # K states or H units
    accuracy: tuple[float, ...]  # share of bits right, of the selected start, for each seed
    recalled: tuple[float, ...]  # bits recalled, the same

    @property
    def group(self) -> str:
        """Returns the name of its group."""
        return f"{self.bits} bits, {self.model}, {self.size}"


class Needed(NamedTuple):
    """The least sufficient size: median, least and most over seeds."""

    value: int | None  # None where less than half of the seeds have a sufficient size
    low: int | None  # None where no seed has one
    high: int | None  # None where some seed has none
    tried: int  # the greatest size

    def __str__(self) -> str:
        value, low, high = (f">{self.tried}" if size is None else str(size) for size in self[:3])
        return f"{value} [{low}, {high}]"


def sizes(config: Hmm) -> Iterator[Point]:
    """Returns all points to try, without results, in order."""
    for bits in sorted(config.bits):
        yield Point(bits, HAND, markov.states_needed(bits), (), ())
        for size in _doubling(2, config.states) if bits <= config.learnt_bits else ():
            yield Point(bits, EM, size, (), ())
        for size in _doubling(1, config.hidden):
            yield Point(bits, LSTM, size, (), ())


def plan(config: Hmm, records: Sequence[Record]) -> list[Group | Computed]:
    """Returns for each number of bits the model by hand, EM, and LSTMs by size."""
    return [_group(config, point) for point in sizes(config)]


def by_hand(bits: int) -> tuple[list[Record], Any]:
    """Returns the results of the model made by hand, which is deterministic."""
    model = markov.exact(bits)
    return [{"trial": 0, **markov.recall(model, bits, GAP)._asdict()}], model


def by_em(config: Hmm, bits: int, states: int) -> tuple[list[Record], Any]:
    """Returns the results of EM from every start of every seed."""
    results, models = [], []
    for seed in config.reported:
        for restart in range(config.restarts):
            start = int(np.random.SeedSequence((seed, restart)).generate_state(1)[0])
            learnt = markov.learn(states, bits, GAP, config.iterations, start)
            models.append(learnt.model)
            results.append(
                {"trial": len(results), "seed": seed, "restart": restart,
                 "iterations": learnt.iterations, "log_likelihood": learnt.log_likelihood,
                 **markov.recall(learnt.model, bits, GAP)._asdict()}
            )  # fmt: skip
    return results, markov.Model(*map(np.stack, zip(*models, strict=True)))


def points(config: Hmm, records: Sequence[Record]) -> list[Point]:
    """Returns the results of all tried points."""
    found = []
    for point in sizes(config):
        picked = _picked(point, ledger.results(records, point.group))
        accuracy, recalled = zip(*picked, strict=True)
        found.append(point._replace(accuracy=accuracy, recalled=recalled))
    return found


def summarise(config: Hmm, records: Sequence[Record]) -> list[Row]:
    """Returns for each number of bits and model the needed size and best result."""
    rows, found = [], points(config, records)
    for bits, model in dict.fromkeys((p.bits, p.model) for p in found):
        mine = [p for p in found if (p.bits, p.model) == (bits, model)]
        best = max(mine, key=lambda p: np.mean(p.recalled))
        rows.append(
            {
                "bits": bits,
                "model": model,
                "needed": needed(mine),
                "best_size": best.size,
                **intervals(best),
                "beyond_log_K": sum(map(beyond, mine)),
            }
        )
    return rows


def every(config: Hmm, records: Sequence[Record]) -> list[Row]:
    """Returns a line for each tried size."""
    found = points(config, records)
    return [{"bits": p.bits, "model": p.model, "size": p.size, **intervals(p)} for p in found]


def intervals(point: Point) -> Row:
    """Returns accuracy and recalled bits over the seeds."""
    accuracy, recalled = _interval(point.accuracy, 1), _interval(point.recalled, point.bits)
    return {"accuracy": accuracy, "bits_recalled": recalled}


def needed(tried: Sequence[Point]) -> Needed:
    """Returns the least sufficient size over the seeds, from points by size."""
    last = tried[-1].size
    least = sorted(
        min((p.size for p in tried if p.accuracy[n] >= ENOUGH), default=math.inf)
        for n in range(len(tried[-1].accuracy))
    )
    ends = least[(len(least) - 1) // 2], least[0], least[-1]
    value, low, high = (None if size == math.inf else int(size) for size in ends)
    return Needed(value, low, high, last)


def beyond(point: Point) -> int:
    """Returns the seeds of a Markov model that exceed log2 K bits; 0 for LSTMs."""
    most = math.inf if point.model == LSTM else markov.most_bits(point.size)
    return sum(bits > most + ROUNDING for bits in point.recalled)


def claims(config: Hmm, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on states, on units, and on EM."""
    by_model = {model: [row for row in rows if row["model"] == model] for model in MODELS}
    markovs = [*by_model[HAND], *by_model[EM]]
    states = ", ".join(f"{r['needed'].value} ({r['bits']})" for r in by_model[HAND])
    units = ", ".join(f"{r['needed']} ({r['bits']})" for r in by_model[LSTM])
    few = [r["needed"].value is not None and r["needed"].value <= r["bits"] for r in by_model[LSTM]]
    found = [
        Claim(
            "A hidden Markov model of K states recalls log2 K bits at most",
            f"{sum(r['beyond_log_K'] for r in markovs)} models with more; by hand k bits take "
            f"so many states: {states}",
            LOG_K,
            of_parts([r["beyond_log_K"] == 0 for r in markovs]),
        ),
        Claim(
            "An LSTM recalls k bits with k units or fewer",
            f"units needed for k bits, median [least, most] of the seeds: {units}",
            NO_CHOICE,
            of_parts(few) if any(few) else UNDECIDED,
        ),
    ]
    could = [r for r in by_model[EM] if markov.states_needed(r["bits"]) <= r["needed"].tried]
    if could:
        states = ", ".join(f"{r['needed']} ({r['bits']})" for r in could)
        said = "EM finds a model that recalls k bits where it has the states for it"
        held = of_parts([r["needed"].value is not None for r in could])
        found.append(Claim(said, f"states needed for k bits: {states}", "-", held))
    return found


def draw(config: Hmm, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws sizes against bits, and the recall of each size."""
    styles, found = figures.styles(MODELS), points(config, records)
    return [sizes_needed(rows, styles), over_sizes(found, styles)]


def sizes_needed(rows: Sequence[Row], styles: Mapping[str, Style]) -> Picture:
    """Draws sufficient sizes against the bits; arrows where none suffices."""
    figure, ((axes,),) = figures.canvas(1, 1, panel=(9, 6.4))
    bits = sorted({row["bits"] for row in rows})
    k = np.linspace(bits[0], bits[-1], 50)
    axes.plot(k, 2**k, color="0.35", linewidth=1.4, label="$2^k$: no HMM with fewer")
    axes.plot(k, k, color="0.35", linewidth=1.4, linestyle=(0, (2, 2)), label="$k$")
    for aside, model in zip((0.0, -0.06, 0.06), MODELS, strict=True):
        _enough(axes, [row for row in rows if row["model"] == model], styles[model], aside)
    axes.set(xlabel="bits to recall, $k$", ylabel=f"states or units for {ENOUGH:.0%} right")
    axes.set_yscale("log", base=2)
    axes.set_xticks(bits)
    axes.set_ylim(0.7, None)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(loc="upper left")
    caption = (
        f"States or units with which {ENOUGH:.0%} of the bits are right: median over seeds, bars "
        "from the least to the most; an arrow: the greatest size is not enough for half of them."
    )
    return Picture("needed", caption, figure)


def _enough(axes: Axes, rows: Sequence[Row], style: Style, aside: float) -> None:
    """Draws one series of `sizes_needed`: points with bars, and arrows."""
    reached = [row for row in rows if row["needed"].value is not None]
    label = rows[0]["model"] if rows else ""
    x = [row["bits"] + aside for row in reached]
    y = [row["needed"].value for row in reached]
    low = [row["needed"].value - row["needed"].low for row in reached]
    high = [(row["needed"].high or row["needed"].tried) - row["needed"].value for row in reached]
    axes.errorbar(x, y, (low, high), capsize=5, elinewidth=1.4, label=label, **style)
    for row in rows:
        if row["needed"].value is None:
            at = row["bits"] + aside, row["needed"].tried
            arrow: Any = {"arrowstyle": "-|>", "color": style["color"], "linewidth": 2}
            axes.plot(*at, color=style["color"], marker=style["marker"], fillstyle="none")
            axes.annotate("", (at[0], at[1] * 2), at, arrowprops=arrow)


def over_sizes(found: Sequence[Point], styles: Mapping[str, Style]) -> Picture:
    """Draws recalled bits against size, a panel for each number of bits."""
    shown = sorted({point.bits for point in found})
    figure, panels = figures.grid(len(shown), 3, (5, 4.2))
    for axes, bits in zip(panels, shown, strict=True):
        for model in MODELS:
            series = [p for p in found if (p.bits, p.model) == (bits, model)]
            middle = [_interval(p.recalled, bits) for p in series]
            if series or bits == shown[0]:
                figures.error_bars(axes, [p.size for p in series], middle, styles[model], model)
        k = np.geomspace(1, 2**bits, 50)
        axes.plot(k, np.log2(k), color="0.35", linewidth=1.4, label="$\\log_2 K$")
        axes.axhline(bits, color="0.35", linewidth=1.0, linestyle=(0, (2, 2)))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(ylim=(-0.06 * bits, 1.08 * bits), title=f"{bits} bit{'s' * (bits > 1)}")
        axes.set(xlabel="states or units", ylabel="bits recalled")
    figures.legend(figure, panels[0])
    caption = "Bits recalled, mean over seeds with Student's 95 % interval. No hidden Markov model "
    caption += "of K states is above the grey line, log2 K."
    return Picture("information", caption, figure)


def _doubling(first: int, most: int) -> list[int]:
    return [first << n for n in range(most.bit_length()) if first << n <= most]


def _group(config: Hmm, point: Point) -> Group | Computed:
    if point.model == HAND:
        return Computed(point.group, functools.partial(by_hand, point.bits))
    if point.model == EM:
        return Computed(point.group, functools.partial(by_em, config, point.bits, point.size))
    task = tasks.Bits(count=point.bits, gap=GAP)
    model = networks.network("lstm", task, point.size, config.engine)
    trials = tuning.trials(config.reported, config.learning_rates)
    return Group(point.group, task, model, config.steps, config.batch_size, trials, "test")


def _picked(point: Point, results: Sequence[Record]) -> list[tuple[float, float]]:
    """Returns accuracy and recalled bits of the best start in training, for each seed."""
    if point.model == HAND:
        return [(r["accuracy"], r["bits"]) for r in results]
    seeds = dict.fromkeys(r["seed"] for r in results)
    by_seed = [[r for r in results if r["seed"] == seed] for seed in seeds]
    if point.model == EM:
        best = [max(some, key=lambda r: r["log_likelihood"]) for some in by_seed]
        return [(r["accuracy"], r["bits"]) for r in best]
    loss = lambda r: math.inf if r["status"] == "diverged" else r["loss"]  # noqa: E731
    best = [min(some, key=loss) for some in by_seed]
    return [(r["test_metric"], point.bits * (1 - r["test_loss"] / math.log(2))) for r in best]


def _interval(values: Sequence[float], most: float) -> statistics.Estimate:
    """Returns mean and Student's interval from 0 to `most`; the value if deterministic."""
    if len(values) == 1:
        return statistics.Estimate(values[0], values[0], values[0])
    return statistics.t_interval(values, within=(min(0.0, *values), max(most, *values)))


EXPERIMENT = Experiment(
    "hmm", str(__doc__), SCALES, plan, summarise, draw, every=every, claims=claims
)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
