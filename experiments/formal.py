"""Networks trained to length 40 count and switch up to length 500, but keep no stack.

An LSTM, a tanh RNN, a GRU, an sLSTM and a minLSTM of one layer learn regular languages, a counting
language, stacks and more (Deletang et al. 2022). The score is the share of right answer symbols,
averaged over lengths 50, 100, ..., 500. "Generalises" reproduces if the best seed scores 90 % or
more, and "does not generalise" if the best seed scores less. A network that did not learn the
training lengths is undecided.

Command: scripts/run formal
Cost: --quick a minute, by default 22 minutes, both on two cores; --scale=paper is for a GPU
Expect: score to length 500 and accuracy in the training lengths, in %
  even pairs, parity  100 and 100: LSTM, tanh RNN, GRU, sLSTM (reproduces)
  cycle navigation    34 and 97: LSTM (does not reproduce)
  bucket sort         58 and 100: LSTM (does not reproduce)
  reversing, stacks   at most 90 in the training lengths (undecided)
Method: docs/experiments.md#formal
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from experiments.common import networks, runner, tuning
from experiments.common.flags import LENGTH, Config, need, setting
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax import tasks
from lstm_jax.nn import SequenceSpec
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import FAILS, REPRODUCES, UNDECIDED
from lstm_jax.report.figures import Style
from lstm_jax.tasks import LANGUAGES, Language, base
from lstm_jax.training import Trials, trials

GENERALISES = 0.9  # the least score of a solved task in the paper
QUESTIONS = 10  # test strings of each length in a batch
CLASSES = {
    "regular": ("even_pairs", "parity", "cycle_navigation", "modular_arithmetic"),
    "counting": ("bucket_sort",),
    "context-free": ("reverse_string", "stack_manipulation"),
    "context-sensitive": ("duplicate_string", "odds_first"),
}
CELLS = {
    "lstm": "LSTM",
    "rnn": "tanh RNN",
    "gru": "GRU",
    "slstm": "sLSTM",
    "min_lstm": "minLSTM",
}
PAPER = "Deletang et al. 2022"
GENERALISING = {"lstm": ("regular", "counting"), "rnn": ("regular",)}  # as claimed there
PUBLISHED = {  # scores in percent, the best of 10 seeds
    ("parity", "lstm"): 100.0,
    ("parity", "rnn"): 100.0,
    ("modular_arithmetic", "lstm"): 100.0,
    ("modular_arithmetic", "rnn"): 100.0,
    ("reverse_string", "lstm"): 60.9,
    ("reverse_string", "rnn"): 62.0,
    ("stack_manipulation", "lstm"): 59.1,
    ("stack_manipulation", "rnn"): 56.0,
    ("duplicate_string", "lstm"): 57.6,
    ("duplicate_string", "rnn"): 50.3,
    ("odds_first", "lstm"): 55.6,
    ("odds_first", "rnn"): 51.0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formal(Config):
    """Which networks learn which languages, and the tested lengths."""

    seeds: int = setting(5, "trials reported for each network and task, each from its own seed")
    steps: int = setting(5000, "updates of a trial where the answer is one symbol")
    long_steps: int = setting(2000, "the same where answers are as long as strings, or longer")
    tasks: tuple[str, ...] = setting(
        ("even_pairs", "parity", "cycle_navigation", "bucket_sort", "stack_manipulation",
         "reverse_string"), "tasks to learn", choices=LANGUAGES,
    )  # fmt: skip
    cells: tuple[str, ...] = setting(tuple(CELLS), "networks to train", choices=CELLS)
    learning_rates: tuple[float, ...] = setting((3e-3, 1e-2), "the grid to choose from")
    tuning_seeds: int = setting(1, "seeds to choose on, before those that are reported")
    batch_size: int = setting(32, "strings an update")
    longest: int = setting(40, "length of the longest string in training", LENGTH)
    test_longest: int = setting(500, "length of the longest string in the test", LENGTH)
    test_lengths: int = setting(10, "lengths in the test, evenly spread", (1, 1000))
    questions: int = setting(50, "test strings of each length, a multiple of 10", (1, 100_000))

    def __post_init__(self):
        super().__post_init__()
        need(self.questions % QUESTIONS == 0, "questions", self.questions, "need a multiple of 10")
        first = self.test_longest // self.test_lengths
        right = (
            f"need --test_lengths={self.test_lengths} lengths beyond --longest={self.longest}, the "
            f"first is {first}"
        )
        need(first > self.longest, "test_longest", self.test_longest, right)


SCALES = {
    "quick": Formal(
        seeds=3, steps=1200, long_steps=300, tasks=("parity", "reverse_string"),
        cells=("lstm", "rnn"), learning_rates=(1e-2,), test_longest=200, test_lengths=4,
        questions=30,
    ),
    "small": Formal(),
    "paper": Formal(
        seeds=10, steps=100_000, long_steps=100_000, tasks=tuple(LANGUAGES),
        learning_rates=(1e-4, 3e-4, 1e-3),
        tuning_seeds=3, batch_size=128, hidden=256, questions=500,
    ),
}  # fmt: skip


def known(config: Formal) -> list[int]:
    """Tested lengths within training: quarters of the longest."""
    return sorted({max(1, round(config.longest * part / 4)) for part in (1, 2, 3, 4)})


def beyond(config: Formal) -> list[int]:
    """Tested lengths beyond training."""
    step = config.test_longest / config.test_lengths
    return [round(step * n) for n in range(1, config.test_lengths + 1)]


def plan(config: Formal, records: Sequence[Record]) -> list[Group]:
    """Returns for each task and network the tuning group, then the reported group."""
    groups, lengths = [], tuple(known(config) + beyond(config))
    for kind, cell in product(config.tasks, config.cells):
        task = tasks.LANGUAGES[kind](1, config.longest)
        model = networks.network(cell, task, config.hidden, config.engine)
        steps = config.steps if task.longest_answer(config.longest) == 1 else config.long_steps
        asked = lengths, config.questions, config.batching
        measure = functools.partial(by_length, task, model, *asked)
        measured = [(dataclasses.replace(task, longest=max(lengths)), QUESTIONS * len(lengths))]
        group = Group(
            f"{kind}-{cell}", task, model, steps, config.batch_size, None, "test",
            measure=measure, measured=measured,
        )  # fmt: skip
        groups += tuning.tune_then_report(config, config.learning_rates, records, group)
    return groups


def by_length(
    task: Language,
    model: SequenceSpec,
    lengths: tuple[int, ...],
    questions: int,
    batching: str,
    params: Any,
    these: Trials,
) -> list[Record]:
    """Returns the accuracy at each length, for each trial: {"by_length": [...]}.

    Strings of all lengths, `QUESTIONS` of each, lie side by side in a batch.
    """
    longer = dataclasses.replace(task, longest=max(lengths))
    repeated = np.repeat(np.array(lengths, np.int32), QUESTIONS)

    def one(args):
        trial, weights = args
        root = base.split_key(trials.keys(trial).evaluation, "test")

        def ask(n):
            batch = longer.at(jax.random.fold_in(root, n), jnp.asarray(repeated))
            outputs = model.apply(weights, batch.x, mask=batch.mask)
            return longer.share(outputs, batch).reshape(len(lengths), QUESTIONS).mean(1)

        return jax.lax.map(ask, jnp.arange(questions // QUESTIONS, dtype=jnp.int32)).mean(0)

    shares = networks.of_each(one, (these, params), batching)
    return [{"by_length": right} for right in shares]


def summarise(config: Formal, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each network and task, with the published score."""
    return [
        row(config, task, cell, ledger.results(records, f"{task}-{cell}-reported"))
        for task, cell in product(config.tasks, config.cells)
    ]


def row(config: Formal, task: str, cell: str, results: Sequence[Record]) -> Row:
    """Returns one line of the table; a score is the mean over the lengths beyond training."""
    published = PUBLISHED.get((task, cell))
    score = [float(np.mean(r["by_length"][len(known(config)) :])) for r in results]
    learnt = [r["test_metric"] for r in results]
    stopped = sum(r["status"] == "solved" for r in results)
    return {
        "class": class_of(task),
        "task": task,
        "network": CELLS[cell],
        "learning_rate": results[0]["learning_rate"],
        "in_training_lengths": statistics.t_interval(learnt, within=(0, 1)),
        "score": float(np.median(score)),
        "least": min(score),
        "best": max(score),
        "published_best": published and published / 100,
        "stopped_early": statistics.wilson(stopped, len(results)),
        "diverged": sum(r["status"] == "diverged" for r in results),
        "verdict": verdict(task, cell, max(learnt), max(score)),
    }


def class_of(task: str) -> str:
    """Returns the class of a task."""
    return next(name for name, members in CLASSES.items() if task in members)


def verdict(task: str, cell: str, learnt: float, score: float) -> str | None:
    """Returns the verdict on a network and task by its best seed; None without a claim."""
    if cell not in GENERALISING:
        return None
    generalises = score >= GENERALISES
    if not generalises and learnt < GENERALISES:
        return UNDECIDED
    return REPRODUCES if generalises == (class_of(task) in GENERALISING[cell]) else FAILS


def claims(config: Formal, rows: Sequence[Row]) -> list[Claim]:
    """Returns the paper's claims on which networks generalise on which languages."""
    found = []
    for row in rows:
        if row["verdict"] is None:
            continue
        cell = next(cell for cell, label in CELLS.items() if label == row["network"])
        network = f"A{'n' * (row['network'] == 'LSTM')} {row['network']}"
        does = "generalises" if row["class"] in GENERALISING[cell] else "does not generalise"
        best = row["published_best"]
        published = "no figure taken over" if best is None else f"best of 10 seeds {best:.1%}"
        found.append(
            Claim(
                f"{network} trained to length {config.longest} {does} on "
                f"{row['task']} ({row['class']})",
                f"score to length {config.test_longest}: median {row['score']:.1%}, best "
                f"{row['best']:.1%}; in training lengths {row['in_training_lengths']}",
                f"{published} ({PAPER})",
                row["verdict"],
            )
        )
    return found


def draw(config: Formal, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws accuracy against length, a panel for each task."""
    styles = figures.styles(list(CELLS.values()))  # the same in every run
    figure, panels = figures.grid(len(config.tasks), 3, (5.2, 4))
    for axes, task in zip(panels, config.tasks, strict=True):
        _panel(axes, config, records, task, styles)
    figures.legend(figure, panels[0])
    caption = (
        f"Right symbols of an answer against the length of the string; trained to {config.longest} "
        f"(the line). Mean over {config.seeds} seeds with Student's 95 % interval."
    )
    return [Picture("lengths", caption, figure)]


def _panel(
    axes: Axes, config: Formal, records: Sequence[Record], task: str, styles: Mapping[str, Style]
) -> None:
    lengths = known(config) + beyond(config)
    for cell in config.cells:
        rights = [r["by_length"] for r in ledger.results(records, f"{task}-{cell}-reported")]
        means = [statistics.t_interval(some, (0, 1)) for some in zip(*rights, strict=True)]
        figures.band(axes, lengths, means, styles[CELLS[cell]], CELLS[cell])
    axes.axvline(config.longest, color="0.35", linewidth=1.2)
    figures.level(axes, tasks.LANGUAGES[task](lengths[-1], lengths[-1]).chance, "chance")
    axes.set(xlabel="length of the string", ylabel="symbols right", ylim=(0, 1.03))
    axes.set(title=f"{task.replace('_', ' ')} ({class_of(task)})", xlim=(0, lengths[-1] * 1.02))


EXPERIMENT = Experiment("formal", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
