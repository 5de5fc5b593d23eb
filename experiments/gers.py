"""Forget gates learn to reset the cell state, and LSTMs count beyond their training lengths.

Blocks of 1997 predict streams of embedded Reber strings, with external resets, without resets, and
with forget gates (Gers, Schmidhuber & Cummins 2000). LSTMs, a GRU and a tanh RNN learn a^n b^n and
a^n b^n c^n from small n (Gers & Schmidhuber 2001). The first claim needs disjoint intervals of the
seeds that read a whole stream without an error. The second needs most seeds to count twice as far
as in training.

Command: scripts/run gers
Cost: --quick a minute, by default 10 minutes, both on two cores; --scale=paper a night, predicted
Expect: of ten seeds; too few, so all three claims are undecided
  perfect to 10^5 symbols  6 with resets, 0 without, 3 with forget gates
  a^n b^n to n = 20        10 LSTMs, 7 LSTMs with peepholes, 0 GRUs, 0 tanh RNNs
  a^n b^n c^n to n = 20    3, 2, 0, 0
Method: docs/experiments.md#gers
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import networks, runner, tuning
from experiments.common.endurance import TRACED, lasting, ranges
from experiments.common.flags import LENGTH, Config, need, setting
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax import cells
from lstm_jax.cells import Cell, MemoryBlocks
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import above, exceeds
from lstm_jax.report.statistics import Share
from lstm_jax.search import continued
from lstm_jax.tasks import ContinualReber, Counting

DECAY = 0.1  # of the learning rate, in the second half
GOOD = 1000  # symbols
STREAMS = 10  # that a trial is tested on
WINDOW, STRINGS = 50, 20  # symbols of an update, strings of a stream, to learn from
TRACE_STEP = 20  # symbols
HORIZON = (TRACED, 1_000_000_000)
FORGET_BIAS = 5.0
LANGUAGES = {"anbn": 2, "anbncn": 3}
PUBLISHED = {
    ("anbn", "peephole"): "about 1000 at best",
    ("anbncn", "peephole"): "about 500 at best",
}
TASKS = ("reber", *LANGUAGES)


class Counter(NamedTuple):
    """A network that counts: its name, its cell for H, and its forget bias."""

    label: str
    cell: Callable[[int], Cell]
    gate_bias: Mapping[str, float] = {}


COUNTERS = {
    "peephole": Counter("LSTM, peepholes", cells.PeepholeLSTM, {"f": FORGET_BIAS}),
    "lstm": Counter("LSTM", cells.LSTM, {"f": FORGET_BIAS}),
    "gru": Counter("GRU", cells.GRU),
    "rnn": Counter("tanh RNN", lambda hidden: cells.RNN(2 * hidden)),
}


class Reader(NamedTuple):
    """A network that reads streams."""

    label: str  # its name
    forgets: bool  # whether it has forget gates
    resets: bool  # whether a reset marks the start of each string
    decays: bool  # whether its learning rate decays in the second half
    perfect: str  # the published share of perfect networks, to 10^6 symbols


READERS = {
    "reset": Reader("1997, external resets", False, True, False, "74 %"),
    "plain": Reader("1997", False, False, False, "0"),
    "forget": Reader("forget gates", True, False, False, "18 %"),
    "decay": Reader("forget gates, rate decays", True, False, True, "62 %"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gers(Config):
    """Which tasks are learned, for how long, and to which test sizes."""

    steps: int = setting(4000, "updates of a trial that counts")
    reber_steps: int = setting(10_000, "updates of a trial that reads streams, an even number")
    hidden: int = setting(4, "units of an LSTM that counts; the RNN has twice as many")
    tasks: tuple[str, ...] = setting(TASKS, "tasks to learn", choices=TASKS)
    learning_rates: tuple[float, ...] = setting((1e-2, 3e-2), "the grid to choose from")
    tuning_seeds: int = setting(2, "seeds to choose on, before those that are reported")
    longest: int = setting(10, "the largest n in training", LENGTH)
    tested: int = setting(300, "the largest n in the test", LENGTH)
    horizon: int = setting(100_000, "symbols of a perfect stream, a multiple of 20", HORIZON)
    batch_size: int = setting(16, "strings or streams an update")

    def __post_init__(self):
        super().__post_init__()
        need(self.reber_steps % 2 == 0, "reber_steps", self.reber_steps, "need an even number")
        whole = self.horizon % TRACE_STEP == 0
        need(whole, "horizon", self.horizon, f"need a multiple of {TRACE_STEP}")
        twice = 2 * self.longest
        right = f"need {twice} or more, twice --longest={self.longest}"
        need(self.tested >= twice, "tested", self.tested, right)


SCALES = {
    "quick": Gers(
        seeds=3, steps=600, reber_steps=600, tasks=("reber", "anbn"), learning_rates=(3e-2,),
        tested=50, horizon=1000,
    ),
    "small": Gers(),
    "paper": Gers(
        seeds=20, steps=20_000, reber_steps=50_000, learning_rates=(3e-3, 1e-2, 3e-2),
        tuning_seeds=5, longest=30, tested=1500, horizon=1_000_000,
    ),
}  # fmt: skip


def plan(config: Gers, records: Sequence[Record]) -> list[Group]:
    """Returns for each task and network the tuning group, then the reported group."""
    groups = []
    for task in config.tasks:
        is_reber = task == "reber"
        groups += reading(config, records) if is_reber else counting(config, records, task)
    return groups


def counting(config: Gers, records: Sequence[Record], language: str) -> list[Group]:
    """Returns the groups of one language."""
    task = Counting(LANGUAGES[language], config.longest)
    longer, groups = Counting(task.letters, config.tested), []
    for name, network in COUNTERS.items():
        model = networks.spec(network.cell(config.hidden), task, config.engine)
        group = Group(
            f"{language}-{name}", task, model, config.steps, config.batch_size, None, "test",
            measure=functools.partial(ranges, longer, model), measured=[(longer, config.tested)],
        )  # fmt: skip
        groups += tuned(config, records, group, gate_bias=network.gate_bias)
    return groups


def reading(config: Gers, records: Sequence[Record]) -> list[Group]:
    """Returns the groups of the streams.

    The decaying learning rate starts at that of the forget gates. Its second half continues from
    the states after half of the updates, which train in a group of their own.
    """
    groups = []
    for name in ("reset", "plain", "forget"):
        reader = READERS[name]
        task = ContinualReber(WINDOW, strings=1 if reader.resets else STRINGS)
        model = networks.spec(blocks(reader.forgets), task, config.engine, b=spread)
        trace = ContinualReber(TRACE_STEP, int(reader.resets))
        group = Group(
            f"reber-{name}", task, model, config.reber_steps, config.batch_size, None, "test",
            measure=functools.partial(lasting, trace, (STREAMS, config.horizon), model),
        )  # fmt: skip
        groups += tuned(config, records, group)
    *_, last = groups
    rate = None if last.trials is None else float(last.trials.learning_rate[0])
    half = last._replace(name="reber-decay-half", save_state=True, measure=None)
    half = half._replace(steps=config.reber_steps // 2)
    decayed = None if rate is None else tuning.trials(config.reported, [rate * DECAY])
    initial = functools.partial(continued, half)
    whole = last._replace(name="reber-decay-reported", trials=decayed, initial_state=initial)
    return [*groups, half, whole]


def tuned(
    config: Gers, records: Sequence[Record], group: Group, **hyperparameters: Any
) -> list[Group]:
    """Returns the tuning group, ranked by the measured quantity, and the reported group."""
    settings = {"choose": best_rate, "measure_tuning": True, **hyperparameters}
    return tuning.tune_then_report(config, config.learning_rates, records, group, **settings)


def best_rate(rates: Sequence[float], results: Sequence[Record]) -> float | None:
    """Returns the rate with the best mean of log(1 + score); None without results."""
    if not results:
        return None
    scores = np.log1p([score(r) for r in results]).reshape(len(rates), -1).mean(1)
    return rates[int(np.argmax(scores))]


def score(result: Record) -> float:
    """Returns a trial's tested quantity: its range, or its streams' mean length."""
    if result["status"] == "diverged":
        return 0.0
    return float(result["range"] if "range" in result else np.mean(result["lasted"]))


def blocks(forgets: bool) -> MemoryBlocks:
    """Returns the 4 blocks of 2 cells of 2000; gates read inputs and cells only."""
    return MemoryBlocks(
        8, size=2, biases="gates", truncated=True, forget_gate=forgets, gate_recurrence=False
    )


def spread(key: jax.Array, cell: MemoryBlocks, dtype: Any) -> dict[str, jax.Array]:
    """Returns the biases of 2000: -0.5, -1, ... (input, output), 0.5, 1, ... (forget)."""
    del key
    steps = 0.5 * jnp.arange(1, cell.width("i") + 1, dtype=dtype)
    biases = {"i": -steps, "o": -steps, "f": steps}
    return {name: biases[name] for name in cell.gates if name != "g"}


def summarise(config: Gers, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each network and task, over the reported seeds."""
    rows = []
    for task in config.tasks:
        found = {name: reported(records, task, name) for name in labels(task)}
        whole = {name: statistics.wilson(*passed(config, r)) for name, r in found.items()}
        rows += [row(config, task, name, found[name], whole) for name in found]
    return rows


def labels(task: str) -> dict[str, str]:
    """Returns the networks of a task: name -> label."""
    return {name: n.label for name, n in (READERS if task == "reber" else COUNTERS).items()}


def reported(records: Sequence[Record], task: str, name: str) -> list[Record]:
    """Returns the results of a network on the reported seeds."""
    return ledger.results(records, f"{task}-{name}-reported")


def passed(config: Gers, results: Sequence[Record]) -> tuple[int, int]:
    """Returns the share of seeds that are perfect, or reach twice the training range."""
    least = config.horizon if "lasted" in results[0] else 2 * config.longest
    return sum(score(r) >= least for r in results), len(results)


def row(
    config: Gers, task: str, name: str, results: Sequence[Record], whole: Mapping[str, Share]
) -> Row:
    """Returns one line of the table; `whole` has the shares of all networks."""
    scores, reads = [score(r) for r in results], task == "reber"
    good = sum(GOOD < s < config.horizon for s in scores) if reads else None
    return {
        "task": task,
        "network": labels(task)[name],
        "learning_rate": results[0]["learning_rate"],
        "tested": "symbols to an error" if reads else "largest n",
        "median": float(np.median(scores)),
        "least": min(scores),
        "greatest": max(scores),
        "passed": whole[name],
        "good": good,
        "paper": READERS[name].perfect if reads else PUBLISHED.get((task, name)),
    }


def claims(config: Gers, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on forget gates without resets and on counting."""
    whole = {(row["task"], row["network"]): row["passed"] for row in rows}
    found = []
    if "reber" in config.tasks:
        forget, plain = (whole["reber", READERS[name].label] for name in ("decay", "plain"))
        said = "Without resets, forget gates and a decaying rate beat the LSTM of 1997 on streams"
        ours = f"perfect to {config.horizon} symbols: {forget} seeds against {plain}"
        published = "62 % against 0, to 10^6 symbols; Gers et al. 2000"
        found.append(Claim(said, ours, published, exceeds(forget, plain)))
    for task in LANGUAGES:
        if task in config.tasks:
            share = whole[task, COUNTERS["peephole"].label]
            training = f"Trained on {Counting(LANGUAGES[task]).language} to {config.longest}"
            said = f"{training}, an LSTM with peepholes counts twice as far"
            published = f"{PUBLISHED[task, 'peephole']}; Gers & Schmidhuber 2001"
            found.append(Claim(said, f"{share} seeds", published, above(share, 0.5)))
    return found


def draw(config: Gers, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws one figure for the streams and one for both languages."""
    languages = [task for task in config.tasks if task in LANGUAGES]
    pictures = [of_reber(config, records)] if "reber" in config.tasks else []
    return pictures + ([of_counting(config, languages, records)] if languages else [])


def of_reber(config: Gers, records: Sequence[Record]) -> Picture:
    """Draws the cells' state over time, and the length of streams."""
    figure, ((state, length),) = figures.canvas(1, 2)
    styles = figures.styles([reader.label for reader in READERS.values()])
    at = np.unique(np.geomspace(1, config.horizon, 60).astype(int))
    for name, reader in READERS.items():
        results = reported(records, "reber", name)
        times = range(TRACE_STEP, TRACED + 1, TRACE_STEP)
        traces = [r["cells"] for r in results if r["status"] != "diverged"]
        if len(traces) > 1:
            sizes = [statistics.t_interval(v, (0, math.inf)) for v in zip(*traces, strict=True)]
            figures.band(state, times, sizes, styles[reader.label], reader.label)
        shares = np.array([[np.mean(np.array(streams(r)) >= n) for n in at] for r in results])
        survived = [statistics.t_interval(v, (0, 1)) for v in shares.T.tolist()]
        figures.band(length, at.tolist(), survived, styles[reader.label], reader.label)
    state.set(xlabel="symbols read", ylabel="|cell state|, mean")
    length.set(xlabel="symbols read", ylabel="streams without an error", xscale="log")
    length.set(ylim=(-0.03, 1.03))
    figures.legend(figure, length)
    caption = (
        f"Continual embedded Reber: the mean |c| of a cell, and the share of {STREAMS} streams a "
        "seed without an error; means over seeds (bands: Student's 95 % interval)."
    )
    return Picture("reber", caption, figure)


def streams(result: Record) -> list[int]:
    """Returns the symbols before each stream's first error; none for diverged trials."""
    return [0] * len(result["lasted"]) if result["status"] == "diverged" else result["lasted"]


def of_counting(config: Gers, languages: Sequence[str], records: Sequence[Record]) -> Picture:
    """Draws the share of seeds that accept all strings up to n, over n."""
    figure, (panels,) = figures.canvas(1, len(languages))
    styles = figures.styles([network.label for network in COUNTERS.values()])
    at = np.unique(np.geomspace(1, config.tested, 80).astype(int))
    for axes, language in zip(panels, languages, strict=True):
        for name, network in COUNTERS.items():
            found = [score(r) for r in reported(records, language, name)]
            shares = [statistics.wilson(sum(n >= k for n in found), len(found)) for k in at]
            figures.band(axes, at.tolist(), shares, styles[network.label], network.label)
        axes.axvline(config.longest, color="0.35", linewidth=1.2, linestyle=(0, (2, 2)), zorder=1)
        axes.set(xlabel="n", ylabel="seeds that accept all to n", xscale="log", ylim=(-0.03, 1.03))
        axes.set_title(Counting(LANGUAGES[language]).language)
    figures.legend(figure, panels[0])
    caption = (
        f"Counting, trained on n = 1 to {config.longest} (dotted), tested to {config.tested}: the "
        "share of seeds that accept all strings up to n (bands: Wilson's 95 % interval)."
    )
    return Picture("counting", caption, figure)


EXPERIMENT = Experiment("gers", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
