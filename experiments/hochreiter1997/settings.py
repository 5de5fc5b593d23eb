"""The experiments of 1997, their sizes, networks and published results."""

import dataclasses
from typing import NamedTuple

from experiments.hochreiter1997 import tasks
from experiments.hochreiter1997.network import Network1997, OnlineNetwork1997
from experiments.hochreiter1997.tasks import CriterionTask
from lstm_jax import cells

TESTED = 2560  # sequences
ALONE = 300  # training strings of 2a and 2b before the cell is added


class Setting(NamedTuple):
    """An experiment of the paper at one size."""

    experiment: str  # its number
    words: str  # its size
    task: CriterionTask  # the problem
    network: Network1997  # with its initialisation, except for its cell's `truncated`
    rate: float  # the learning rate
    sequences: int  # the paper's mean to success; for "tiny" ones a guess for the budget
    # the paper's share of wrong test sequences; None where it gives none
    wrong: float | None = None
    published: bool = True  # whether the paper has it
    # whether it is another reading of the paper: it gets no verdict, and only the network of 1997
    # tries it
    reading: bool = False
    after: int = 0  # sequences of the criterion that do not count
    alone: int = 0  # training sequences before the cells are added
    others: str = ""  # the results of the paper's other networks

    def group(self, network: str) -> str:
        """Returns the name of the trials of one network."""
        size = "".join(c if c.isalnum() or c == "." else "_" for c in self.words)
        return f"{self.experiment}-{size}-{network}"


def blocks(
    task: CriterionTask, hidden: int, size: int, start: float, *, whole: bool = False, **fields
) -> Network1997:
    """Returns a network of memory blocks; `fields` are those of its cell and its own.

    With the `whole` gradient it learns only at the end of a sequence.
    """
    mine = {field.name for field in dataclasses.fields(cells.MemoryBlocks)}
    cell = {name: fields.pop(name) for name in tuple(fields) if name in mine}
    block = cells.MemoryBlocks(hidden, size=size, truncated=not whole, **cell)
    online = task.readout == "every" and not whole
    kind = OnlineNetwork1997 if online else Network1997
    return kind(block, task.input_size, task.output_size, task.readout, start, **fields)


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
