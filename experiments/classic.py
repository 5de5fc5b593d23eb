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
import sys
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from experiments.common import networks, runner
from experiments.common.flags import BATCHINGS, Config, need, setting
from experiments.common.plan import Experiment
from experiments.hochreiter1997 import tasks
from experiments.hochreiter1997.network import Network1997, OnlineNetwork1997
from lstm_jax import cells
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import FAILS, REPRODUCES, UNDECIDED, Claim, of_parts
from lstm_jax.report.figures import Picture, Style
from lstm_jax.report.ledger import Record
from lstm_jax.report.statistics import Estimate, Share
from lstm_jax.report.tables import Row
from lstm_jax.search import Group, continued
from lstm_jax.tasks import Judged
from lstm_jax.training.trials import make_trials

SOURCE = "Hochreiter & Schmidhuber 1997"
TESTED = 2560  # sequences
SOLVED, FACTOR = 0.8, 2.0  # the least share for "reproduces"
HALF = 0.5  # the least share for "reproduces partly"
CLIP = 1.0  # of today's networks
BUDGET = (0.001, 1_000_000.0)
GUESSED_FROM = 100.0  # guessed weights are uniform in plus and minus this
GUESSABLE = ("3a", "3b")
ALONE = 300  # training strings of 2a and 2b before the cell is added
LABELS = {"1997": "LSTM of 1997", "guess": "guessing", **networks.LABELS}
LEVELS = ("tiny", "shortest", "all")


class Setting(NamedTuple):
    """An experiment of the paper at one size.

    Attributes:
      experiment: its number.
      words: its size.
      task: the problem.
      network: with its initialisation, except for its cell's `truncated`.
      rate: the learning rate.
      sequences: the paper's mean to success; for "tiny" ones a guess for the budget.
      wrong: the paper's share of wrong test sequences; None where it gives none.
      published: whether the paper has it.
      reading: whether it is another reading of the paper: it gets no verdict, and only the network
        of 1997 tries it.
      after: sequences of the criterion that do not count.
      alone: training sequences before the cells are added.
      others: the results of the paper's other networks.
    """

    experiment: str
    words: str
    task: Judged
    network: Network1997
    rate: float
    sequences: int
    wrong: float | None = None
    published: bool = True
    reading: bool = False
    after: int = 0
    alone: int = 0
    others: str = ""

    def group(self, network: str) -> str:
        """Returns the name of the trials of one network."""
        size = "".join(c if c.isalnum() or c == "." else "_" for c in self.words)
        return f"{self.experiment}-{size}-{network}"


def blocks(
    task: Judged, hidden: int, size: int, start: float, *, whole: bool = False, **told
) -> Network1997:
    """Returns a network of memory blocks; `told` sets fields of its cell and its own.

    With the `whole` gradient it learns only at the end of a sequence.
    """
    mine = {field.name for field in dataclasses.fields(cells.MemoryBlocks)}
    cell = {name: told.pop(name) for name in tuple(told) if name in mine}
    block = cells.MemoryBlocks(hidden, size=size, truncated=not whole, **cell)
    online = task.readout == "every" and not whole
    kind = OnlineNetwork1997 if online else Network1997
    return kind(block, task.input_size, task.output_size, task.readout, start, **told)


def reber(
    data_set: int, hidden: int, size: int, rate: float, sequences: int, *, whole: bool = False
) -> Setting:
    """Returns experiment 1 with one data set, network and learning rate, or another reading."""
    task, number = tasks.ReberOnline(data_set), hidden // size
    biases = tuple(-1.0 - n % 4 for n in range(number))
    network = blocks(task, hidden, size, 0.2, whole=whole, biases="gates", output_biases=biases)
    words = f"{number} blocks of {size}, rate {rate:g}, set {data_set}{whole * ', whole gradient'}"
    others = "RTRL some (25,000 or more), Elman 0 %, RCC 50 % (182,000)"
    return Setting("1", words, task, network, rate, sequences, reading=whole, others=others)


def two_strings(
    experiment: str, p: int, sequences: int, others: str = "", *, published: bool = True,
    reading: bool = False,
) -> Setting:  # fmt: skip
    """Returns experiment 2a or 2b, or the `reading` with the last symbol alone."""
    task = tasks.TwoStrings(p, experiment == "2b", last_only=reading, cross_entropy=reading)
    network = blocks(
        task, 1, 1, 0.2, biases="none", output_gate=False, recurrent=False, shortcut=True,
        input_activation="s", output_activation="identity",
    )  # fmt: skip
    words = f"p = {p}{reading * ', last symbol, cross entropy'}"
    return Setting(
        experiment, words, task, network, 1.0, sequences, after=task.criterion.window,
        alone=ALONE, others=others, published=published, reading=reading,
    )  # fmt: skip


def random_lag(q: int, p: int, sequences: int, *, input_alone: bool = False) -> Setting:
    """Returns experiment 2c, or the reading with blocks of `input_alone`."""
    task = tasks.RandomLag(q, p)
    network = blocks(task, 2, 1, 0.2, biases="none", recurrent=not input_alone)
    words, after = f"q = {q}, p = {p}{input_alone * ', input alone'}", task.criterion.window
    return Setting("2c", words, task, network, 0.01, sequences, after=after, reading=input_alone)


def two_sequences(
    form: str, T: int, N: int, sequences: int, wrong: float | None, *, unbiased: bool = False,
    **more,
) -> Setting:  # fmt: skip
    """Returns experiment 3a, 3b or 3c, or a reading with `unbiased` cells."""
    task, rate = tasks.TwoSequences(T, N, form), 0.1 if form == "3c" else 1.0
    network = blocks(
        task, 3, 1, 0.1, input_biases=(-1.0, -3.0, -5.0), output_biases=(-2.0, -4.0, -6.0),
        biases="gates" if unbiased else "all",
    )  # fmt: skip
    words = f"T = {T}, N = {N}{unbiased * ', cells unbiased'}"
    wrong = None if wrong is None else TESTED * wrong
    return Setting(form, words, task, network, rate, sequences, wrong, reading=unbiased, **more)


def adding(
    T: int, sequences: int, wrong: int, *, logistic: bool = False, input_alone: bool = False
) -> Setting:
    """Returns experiment 4, or a reading: a `logistic` output or `input_alone`."""
    task, reading = tasks.AddingOnline(T, logistic), logistic or input_alone
    words = f"T = {T}{logistic * ', logistic output'}{input_alone * ', input alone'}"
    network = blocks(
        task, 4, 2, 0.1, input_biases=(-3.0, -6.0), output_units_biased=True,
        recurrent=not input_alone, biases="gates" if input_alone else "all",
    )  # fmt: skip
    return Setting("4", words, task, network, 0.5, sequences, wrong, reading=reading)


def multiplying(n_seq: int, sequences: int, wrong: int, *, cross_entropy: bool = False) -> Setting:
    """Returns experiment 5, or the reading by `cross_entropy` of a logistic output."""
    task = tasks.MultiplyingOnline(
        100, logistic=cross_entropy, cross_entropy=cross_entropy, wrong=n_seq
    )
    network = blocks(task, 4, 2, 0.1, output_units_biased=True)
    words = f"T = 100, n_seq = {n_seq}{cross_entropy * ', cross entropy'}"
    return Setting("5", words, task, network, 0.1, sequences, wrong, reading=cross_entropy)


def temporal_order(marks: int, sequences: int, wrong: int, cross_entropy: bool = False) -> Setting:
    """Returns experiment 6a or 6b, or the reading by `cross_entropy`."""
    task = tasks.TemporalOrder(marks, cross_entropy)
    biases = tuple(-2.0 * (n + 1) for n in range(marks))
    network = blocks(task, 2 * marks, 2, 0.1, input_biases=biases, output_units_biased=True)
    name, rate = {2: ("6a", 0.5), 3: ("6b", 0.1)}[marks]
    words = f"{marks} marks{cross_entropy * ', cross entropy'}"
    return Setting(name, words, task, network, rate, sequences, wrong, reading=cross_entropy)


RTRL_10 = "RTRL, BPTT 0 % (> 5,000,000), chunker 33 % (32,400)"
SETTINGS = {
    "tiny": (
        two_strings("2a", 5, 2000, published=False),
        two_sequences("3a", 20, 3, 10_000, None, published=False),
    ),
    "shortest": (
        reber(0, 6, 2, 0.5, 8440),
        reber(0, 32, 4, 0.5, 8440, whole=True),
        two_strings("2a", 100, 5040, RTRL_10),
        two_strings("2b", 100, 5680, "RTRL, BPTT, chunker 0 %"),
        two_strings("2b", 100, 5680, reading=True),
        random_lag(50, 50, 30_000),
        random_lag(50, 50, 30_000, input_alone=True),
        two_sequences("3a", 100, 3, 39_850, 0.000195, others="weight guessing faster"),
        two_sequences("3b", 100, 3, 43_250, 0.00828, others="weight guessing faster"),
        two_sequences("3c", 100, 3, 269_650, 0.00558),
        adding(100, 74_000, 1),
        adding(100, 74_000, 1, logistic=True),
        multiplying(140, 482_000, 139),
        multiplying(140, 482_000, 139, cross_entropy=True),
        temporal_order(2, 31_390, 1),
        temporal_order(3, 571_100, 2),
        temporal_order(3, 571_100, 2, cross_entropy=True),
    ),
}
FURTHER = (
    *(reber(n, 4, 1, rate, s) for n in range(3) for rate, s in ((0.1, 39_740), (0.5, 9500))),
    *(
        reber(n, 6, 2, rate, s)
        for n in range(3)
        for rate, s in ((0.1, 21_730), (0.2, 14_060), (0.5, 8440))
    ),
    *(
        random_lag(q, p, s, input_alone=alone)
        for q, p, s in (
            (100, 100, 31_000), (200, 200, 33_000), (500, 500, 38_000), (1000, 1000, 49_000),
            (1000, 500, 49_000), (1000, 200, 75_000), (1000, 100, 135_000), (1000, 50, 203_000),
        )
        for alone in (False, True)
    ),
    two_sequences("3a", 100, 1, 64_330, 0.000117),
    two_sequences("3a", 1000, 3, 452_460, 0.000078),
    two_sequences("3a", 1000, 3, 452_460, 0.000078, unbiased=True),
    two_sequences("3b", 100, 1, 78_430, 0.01500),
    two_sequences("3b", 1000, 1, 485_080, 0.01207),
    two_sequences("3b", 1000, 1, 485_080, 0.01207, unbiased=True),
    two_sequences("3c", 100, 1, 565_640, 0.00441),
    adding(500, 209_000, 0),
    adding(500, 209_000, 0, input_alone=True),
    adding(1000, 853_000, 1),
    adding(1000, 853_000, 1, input_alone=True),
    multiplying(13, 1_273_000, 14),
    multiplying(13, 1_273_000, 14, cross_entropy=True),
)  # fmt: skip
SETTINGS["all"] = tuple(
    sorted(dict.fromkeys((*SETTINGS["shortest"], *FURTHER)), key=lambda at: at.experiment)
)
EXPERIMENTS = tuple(dict.fromkeys(s.experiment for s in SETTINGS["shortest"]))


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
    experiments: tuple[str, ...] = setting(
        EXPERIMENTS, "experiments of the paper", choices=EXPERIMENTS
    )
    settings: str = setting("shortest", "sizes of the experiments", choices=LEVELS)
    size: str = setting("", "only experiments of this size, as in the table: 'T = 1000'")
    networks: tuple[str, ...] = setting(
        ("1997", "rnn", "guess"), "networks to train", choices=LABELS
    )
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
    del records
    makers = {"1997": online, "guess": guessing}
    return [
        group for at, name in cases(config) for group in makers.get(name, today)(config, at, name)
    ]


def online(config: Classic, at: Setting, name: str) -> list[Group]:
    """Returns the groups of the network of 1997, first without its cells if they wait."""
    model = dataclasses.replace(at.network, engine=config.engine)
    trials = make_trials(seed=seeds(config), learning_rate=config.rate * at.rate)
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
    trials = make_trials(seed=seeds(config), learning_rate=config.learning_rate, clip=CLIP)
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


def seeds(config: Classic) -> range:
    """Returns the reported seeds."""
    return range(config.seed, config.seed + config.seeds)


def summarise(config: Classic, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each setting and network, with the paper's result."""
    return [
        row(config, at, name, ledger.results(records, at.group(name))) for at, name in cases(config)
    ]


def row(config: Classic, at: Setting, name: str, results: Sequence[Record]) -> Row:
    """Returns one line of the table, from the results of one group."""
    if name == "guess":
        solved, mean, wrong = guesses(at.task.criterion.allowed, results)
        needed = []
    else:
        solved = [r["status"] == "solved" for r in results]
        needed = [n for n in sequences(at, results) if n is not None]
        mean = estimate(needed)
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


def estimate(values: Sequence[float]) -> Estimate | None:
    """Returns the mean with its interval; a single value has no interval."""
    if len(values) < 2:
        return Estimate(values[0], np.nan, np.nan) if values else None
    return statistics.t_interval(values, within=(0, np.inf))


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
        told = f"{mine['solved']} solve it{told_needed(mine['sequences'])}{told_wrong(mine)}"
        others = {row["network"]: row for row in rows if row["setting"] == mine["setting"]
                  and row["experiment"] == mine["experiment"]}  # fmt: skip
        if mine["verdict"]:
            said = f"Experiment {at}: the LSTM of 1997 solves it in as many sequences"
            found.append(Claim(said, told, published(mine), mine["verdict"]))
        if mine["network"] == LABELS["guess"] and LABELS["1997"] in others:
            lstm = others[LABELS["1997"]]["sequences"]
            said = f"Experiment {at}: guessing weights needs fewer sequences than the LSTM of 1997"
            found.append(Claim(said, told, f"yes ({SOURCE})", fewer(mine["sequences"], lstm)))
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


def told_needed(mean: Estimate | None) -> str:
    """Returns the sequences to success as text, with an interval if possible."""
    if mean is None:
        return ""
    interval = f" [{mean.low:,.0f}, {mean.high:,.0f}]" if np.isfinite(mean.low) else ""
    return f", sequences {mean.value:,.0f}{interval}"


def told_wrong(row: Row) -> str:
    """Returns wrong answers of how many as text; empty without success."""
    return "" if row["wrong"] is None else f", wrong {row['wrong']:.3g} of {row['of']}"


def published(row: Row) -> str:
    """Returns the paper's numbers as text."""
    wrong = "" if row["paper_wrong"] is None else f", wrong {row['paper_wrong']:.3g} of {TESTED}"
    return f"{row['paper']:,} sequences{wrong} ({SOURCE})"


def draw(config: Classic, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws the sequences to success of every trial, with the paper's means."""
    del rows
    chosen = list(dict.fromkeys(at for at, _ in cases(config)))
    names = [name for name in config.networks if name != "guess"]
    styles = figures.styles(list(LABELS.values()))
    width = max(11.0, 1.35 * len(chosen) * max(1.0, 0.45 * len(names)))
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
    sys.exit(runner.main(EXPERIMENT, sys.argv))
