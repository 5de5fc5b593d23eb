"""The LSTM of 1997 solves its long-lag problems in about as many sequences as published.

All experiments of Hochreiter & Schmidhuber 1997 run with its memory blocks, truncated gradient,
encodings and criteria. A tanh RNN with Adam and random guessing of weights run on the same
sequences. An experiment reproduces if 80 % of the trials solve it and need at most twice the
paper's mean number of sequences. It reproduces partly if one of the two conditions holds and half
of the trials solve it.

Command: scripts/run classic
Cost: --quick a minute; an hour by default, two cores; --scale=paper takes nights
Expect: of ten trials, with the ratio of mean sequences to the paper's
  3a, 3b, 3c, 4, 6a  10 solve it; 0.70, 0.34, 0.56, 1.14, 0.80 (reproduces)
  6b, 5, 2c          4, 3 and 1 solve it; 0.4, 1.6, 1.7 (does not reproduce)
  1, 2a, 2b          0 solve it (does not reproduce)
  guessing           800 sequences in 3a (reproduces), 7,100 in 3b (undecided)
Method, other readings and causes: docs/experiments.md#classic
"""

import dataclasses
import functools
from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes

from experiments.common import networks, runner, tuning
from experiments.common.flags import BATCHINGS, Config, need, setting
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from experiments.hochreiter1997.network import OnlineNetwork1997
from experiments.hochreiter1997.settings import EXPERIMENTS, SETTINGS, TESTED, Setting
from lstm_jax import cells
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import FAILS, REPRODUCES, UNDECIDED, of_parts
from lstm_jax.report.figures import Style
from lstm_jax.report.statistics import Estimate, Share
from lstm_jax.search import continued
from lstm_jax.training import make_trials

SOURCE = "Hochreiter & Schmidhuber 1997"
SOLVED, FACTOR = 0.8, 2.0  # the least share for "reproduces"
HALF = 0.5  # the least share for "reproduces partly"
BUDGET = (0.001, 1_000_000.0)
GUESSED_FROM = 100.0  # guessed weights are uniform in plus and minus this
GUESSABLE = ("3a", "3b")
LABELS = {"1997": "LSTM of 1997", "guess": "guessing", **networks.LABELS}
LEVELS = ("tiny", "shortest", "all")


def cases(config: "Classic") -> list[tuple[Setting, str]]:
    """Returns the settings and networks to try."""
    named = [s for s in SETTINGS[config.settings] if s.experiment in config.experiments]
    chosen = [s for s in named if parts(config.size) <= parts(s.words)]
    return [(s, n) for s, n in product(chosen, config.networks) if tries(s, n)]


def parts(words: str) -> set[str]:
    """Returns the parts of a size; "T = 1000, N = 3" has two."""
    return {part.strip() for part in words.split(",")} - {""}


def tries(at: Setting, network: str) -> bool:
    """Returns whether a network tries a setting."""
    if network == "guess":
        return at.experiment in GUESSABLE
    return network == "1997" or not at.reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classic(Config):
    """Which experiments of 1997 which networks try, at which sizes, and for how long."""

    steps: int = setting(4_000_000, "the most sequences of a trial, whatever the budget")
    hidden: int = setting(16, "hidden units of today's networks")
    batching: str = setting("vmap", "the trials of one device", choices=BATCHINGS)
    experiments: tuple[str, ...] = setting(EXPERIMENTS, "of the paper", choices=EXPERIMENTS)
    settings: str = setting("shortest", "sizes of the experiments", choices=LEVELS)
    size: str = setting("", "only experiments of this size, as in the table: 'T = 1000'")
    networks: tuple[str, ...] = setting(("1997", "rnn", "guess"), "to train", choices=LABELS)
    budget: float = setting(2.0, "sequences of a trial of 1997, times the paper's mean", BUDGET)
    other_budget: float = setting(2.0, "the same for today's networks", BUDGET)
    rate: float = setting(1.0, "learning rate of the networks of 1997, times the paper's")
    learning_rate: float = setting(3e-3, "learning rates of today's networks, with Adam")
    guesses: int = setting(10_000, "networks guessed for 3a and 3b", (2, 1_000_000))

    def __post_init__(self):
        super().__post_init__()
        size = f" is of --size={self.size}" if self.size else ""
        right = f"none of these experiments at --settings={self.settings}{size}"
        need(bool(cases(self)), "experiments", self.experiments, right)

    @property
    def last_seed(self) -> int:
        """The greatest seed, of the trials or of the guesses."""
        return self.seed + max(self.seeds, self.guesses) - 1


SCALES = {
    "quick": Classic(settings="tiny", experiments=("2a", "3a"), seeds=4),
    "small": Classic(),
    "paper": Classic(settings="all", networks=tuple(LABELS)),
}


def plan(config: Classic, records: Sequence[Record]) -> list[Group]:
    """Returns a group for each setting and network, two where cells are added."""
    makers, groups = {"1997": online, "guess": guessing}, []
    for at, name in cases(config):
        groups += makers.get(name, today)(config, at, name)
    return groups


def online(config: Classic, at: Setting, name: str) -> list[Group]:
    """Returns the groups of the network of 1997, first without its cells if they wait."""
    model = dataclasses.replace(at.network, engine=config.engine)
    trials = make_trials(seed=config.reported, learning_rate=config.rate * at.rate)
    window = 1 if isinstance(model, OnlineNetwork1997) else None
    learnt = group(config, at, name, model, trials, config.budget)
    learnt = learnt._replace(optimizer="sgd", window=window)
    if not at.alone:
        return [learnt]
    waiting = dataclasses.replace(model, cells_wait=True)
    steps = min(at.alone, learnt.steps)
    alone = learnt._replace(name=at.group("alone"), model=waiting, steps=steps, save_state=True)
    return [alone, learnt._replace(initial_state=functools.partial(continued, alone))]


def today(config: Classic, at: Setting, name: str) -> list[Group]:
    """Returns the group of today's network with Adam on the same sequences."""
    model = networks.network(name, at.task, config.hidden, config.engine)
    trials = make_trials(seed=config.reported, learning_rate=config.learning_rate, clip=tuning.CLIP)
    return [group(config, at, name, model, trials, config.other_budget)]


def guessing(config: Classic, at: Setting, name: str) -> list[Group]:
    """Returns a group of one-unit tanh networks, each a guess that hardly learns."""
    model = dataclasses.replace(
        at.network, cell=cells.RNN(1), start=GUESSED_FROM, input_biases=(), output_biases=(),
        output_units_biased=True, engine=config.engine,
    )  # fmt: skip
    guessed = range(config.seed, config.seed + config.guesses)
    trials = make_trials(seed=guessed, learning_rate=1e-30)
    return [Group(at.group(name), at.task, model, 1, 1, trials, "test", 256, optimizer="sgd")]


def group(config: Classic, at: Setting, name: str, model, trials, budget: float) -> Group:
    """Returns trials with an update at every sequence."""
    steps = min(config.steps, round(budget * at.sequences) + at.after)
    return Group(at.group(name), at.task, model, steps, 1, trials, "test", TESTED)


def summarise(config: Classic, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each setting and network, with the paper's result."""
    results = functools.partial(ledger.results, records)
    return [row(config, at, name, results(at.group(name))) for at, name in cases(config)]


def row(config: Classic, at: Setting, name: str, results: Sequence[Record]) -> Row:
    """Returns one line of the table, from the results of one group."""
    if name == "guess":
        solved, mean, wrong = guesses(at.task.criterion.allowed, results)
        needed = []
    else:
        solved = [r["status"] == "solved" for r in results]
        needed = [n for n in sequences(at, results) if n is not None]
        mean = statistics.interval(needed, (0, np.inf)) if needed else None
        wrong = [r["test_n"] - r["test_correct"] for r in results if r["status"] == "solved"]
    share = statistics.wilson(sum(solved), len(solved))
    ratio = None if mean is None or not at.published else mean.value / at.sequences
    judged = name == "1997" and at.published and not at.reading
    return {
        "experiment": at.experiment,
        "setting": at.words,
        "network": LABELS[name],
        "trials": len(solved),
        "solved": share,
        "sequences": mean,
        "median": float(np.median(needed)) if needed else None,
        "paper": at.sequences if at.published else None,
        "ratio": ratio,
        "wrong": float(np.mean(wrong)) if wrong else None,
        "of": results[0]["test_n"],
        "paper_wrong": at.wrong,
        "verdict": verdict(share.value, ratio, config.budget) if judged else None,
        "others_in_1997": at.others or None,
    }


def sequences(at: Setting, results: Sequence[Record]) -> list[int | None]:
    """Returns the sequences of each trial to success; None without success."""
    return [r["step"] - at.after if r["status"] == "solved" else None for r in results]


def guesses(
    allowed: int, results: Sequence[Record]
) -> tuple[list[bool], Estimate | None, list[int]]:
    """Returns the right guesses, the sequences until the first, and their errors.

    A guess that answers a share c of its n sequences right is dropped at the first wrong answer
    beyond `allowed`, after (allowed + 1) / (1 - c) sequences on average, n at most. 1 / p - 1
    guesses come before a right one. The interval is that of p.
    """
    n, wrong = results[0]["test_n"], [r["test_n"] - r["test_correct"] for r in results]
    right, errors = [w <= allowed for w in wrong], [w for w in wrong if w <= allowed]
    if not errors:
        return right, None, errors
    dropped = [min(n, n * (allowed + 1) / w) for w in wrong if w > allowed]
    cost, share = float(np.mean(dropped or [0.0])), statistics.wilson(len(errors), len(wrong))
    needed = [(1 / p - 1) * cost + n for p in (share.value, share.high, share.low)]
    return right, Estimate(*needed), errors


def verdict(share: float, ratio: float | None, budget: float) -> str:
    """Returns the verdict on an experiment: the share solved, and sequences against the paper's."""
    if ratio is None:
        return FAILS if budget >= FACTOR else UNDECIDED
    return of_parts([share >= SOLVED, ratio <= FACTOR]) if share >= HALF else FAILS


def claims(config: Classic, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on the paper's numbers, on the tanh RNN and on guessing."""
    found = []
    for mine in rows:
        at = f"{mine['experiment']} ({mine['setting']})"
        ours = f"{mine['solved']} solve it{needed_words(mine['sequences'])}{wrong_words(mine)}"
        others = {row["network"]: row for row in rows if row["setting"] == mine["setting"]
                  and row["experiment"] == mine["experiment"]}  # fmt: skip
        if mine["verdict"]:
            said = f"Experiment {at}: the LSTM of 1997 solves it in as many sequences"
            found.append(Claim(said, ours, published(mine), mine["verdict"]))
        if mine["network"] == LABELS["guess"] and LABELS["1997"] in others:
            lstm = others[LABELS["1997"]]["sequences"]
            said = f"Experiment {at}: guessing weights needs fewer sequences than the LSTM of 1997"
            found.append(Claim(said, ours, f"yes ({SOURCE})", fewer(mine["sequences"], lstm)))
        if mine["network"] == LABELS["rnn"] and LABELS["1997"] in others:
            lstm = others[LABELS["1997"]]["solved"]
            said = f"Experiment {at}: a tanh RNN with Adam solves it less often"
            ours = f"{mine['solved']} in {config.other_budget:g} times the paper's sequences"
            found.append(Claim(said, ours, "-", below(mine["solved"], lstm)))
    return found


def fewer(one: Estimate | None, other: Estimate | None) -> str:
    """Returns the verdict on one mean being below another; undecided where one is missing."""
    return UNDECIDED if one is None or other is None else below(one, other)


def below(one: Share | Estimate, other: Share | Estimate) -> str:
    """Returns the verdict on one number being below another, from their intervals."""
    if one.high < other.low:
        return REPRODUCES
    return UNDECIDED if one.value < other.value else FAILS


def needed_words(mean: Estimate | None) -> str:
    """Returns the sequences to success as text, with an interval if possible."""
    if mean is None:
        return ""
    interval = f" [{mean.low:,.0f}, {mean.high:,.0f}]" if np.isfinite(mean.low) else ""
    return f", sequences {mean.value:,.0f}{interval}"


def wrong_words(row: Row) -> str:
    """Returns wrong answers of how many as text; empty without success."""
    return "" if row["wrong"] is None else f", wrong {row['wrong']:.3g} of {row['of']}"


def published(row: Row) -> str:
    """Returns the paper's numbers as text."""
    wrong = "" if row["paper_wrong"] is None else f", wrong {row['paper_wrong']:.3g} of {TESTED}"
    return f"{row['paper']:,} sequences{wrong} ({SOURCE})"


def draw(config: Classic, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws the sequences to success of every trial, with the paper's means."""
    chosen = list(dict.fromkeys(at for at, _ in cases(config)))
    names = [name for name in config.networks if name != "guess"]
    styles = figures.styles(list(LABELS.values()))
    width = min(16.8, max(11.0, 1.35 * len(chosen)))
    figure, ((axes,),) = figures.canvas(1, 1, panel=(width, 7))
    for at, setting_ in enumerate(chosen):
        if setting_.published:
            axes.hlines(setting_.sequences, at - 0.42, at + 0.42, color="0.2", linewidth=2.5)
        mine = [name for name in names if tries(setting_, name)]
        for place, name in enumerate(mine):
            results = ledger.results(records, setting_.group(name))
            x = at + 0.8 * ((place + 0.5) / len(mine) - 0.5)
            dots(axes, x, setting_, results, styles[LABELS[name]], 0.5 / len(names))
    for name in names:
        style = {**styles[LABELS[name]], "linestyle": "none"}
        axes.plot([], [], label=LABELS[name], **style)
    axes.plot([], [], color="0.2", linewidth=2.5, label="mean of the paper")
    axes.plot([], [], "o", color="0.4", markerfacecolor="none", label="not solved")
    axes.set_xticks(range(len(chosen)), [f"{s.experiment}\n{short(s)}" for s in chosen])
    axes.tick_params(axis="x", labelsize=12)
    axes.set(yscale="log", ylabel="sequences to success", xlim=(-0.6, len(chosen) - 0.4))
    axes.grid(axis="x", visible=False)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.12)
    figures.legend(figure, axes)
    caption = (
        "Training sequences up to the criterion of 1997, a dot for each trial. Open dots: trials "
        "without success in their budget. Bars: means of the paper. Above: trials that solve it. "
        "2a to 2c count up to the first of 10,000 right answers."
    )
    return [Picture("sequences", caption, figure)]


def short(at: Setting) -> str:
    """Returns the size of a setting on about two lines."""
    return at.words.removesuffix(" output").replace(", ", "\n")


def dots(
    axes: Axes, x: float, at: Setting, results: Sequence[Record], style: Style, spread: float
) -> None:
    """Draws every trial of a group around x, with the solved share above."""
    needed = sequences(at, results)
    places = x + spread * (np.linspace(0, 1, len(needed)) - 0.5)
    for place, result, n in zip(places, results, needed, strict=True):
        fill = style["color"] if n is not None else "none"
        y = max(1, result["step"] - at.after)
        axes.plot(place, y, marker=style["marker"], color=style["color"], markerfacecolor=fill)
    top = max(max(1, r["step"] - at.after) for r in results)
    words = f"{sum(n is not None for n in needed)}/{len(needed)}"
    axes.annotate(
        words, (x, top), (0, 9), textcoords="offset points", ha="center", fontsize=13,
        color=style["color"], bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip


EXPERIMENT = Experiment("classic", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
