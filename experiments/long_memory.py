"""An LSTM recalls a symbol after 300 steps if its biases start spread over time scales.

A tanh RNN, an IRNN, a GRU, an LSTM with a forget bias of 1 and an LSTM with chrono biases learn to
recall a marked symbol, and to classify digits read pixel by pixel. Learning rates are chosen on
tuning seeds; other seeds are reported. A seed solves its task if 95 % of the test sequences are
right. A claim on seeds reproduces if Wilson's 95 % interval lies on the claimed side of one half.

Command: scripts/run long_memory
Cost: --quick a minute, by default 13 minutes, both on two cores; --scale=paper is for a GPU
Expect: seeds of ten that solve recall at lag 300, and accuracy on the digits
  LSTM with chrono biases  9   92.9 %
  GRU                      3   92.0 %
  LSTM, forget bias of 1   0   92.8 %
  tanh RNN                 0   88.3 %
  IRNN                     0   58.9 %
Method: docs/experiments.md#long_memory
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from experiments.common import networks, runner, tuning
from experiments.common.flags import Config, naming, setting
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax import tasks
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import above, below
from lstm_jax.report.figures import Style
from lstm_jax.report.statistics import SOLVED, is_chance, is_solved
from lstm_jax.tasks import Task

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
OVER_LAGS: dict[str, Callable[[int], Task]] = {
    "recall": lambda lag: tasks.Recall(lag=lag),
    "copy_memory": lambda lag: tasks.CopyMemory(lag=lag),
    "adding": lambda lag: tasks.Adding(length=lag),
}
TASKS = (*OVER_LAGS, "digits")
CELLS = tuple(networks.LABELS)
CHRONO = "copying over 500 and 2,000 steps (Tallec & Ollivier 2018)"
LONG_LAGS = "RTRL and BPTT fail over 100 steps (Hochreiter & Schmidhuber 1997, experiment 2a)"
PIXELS = "28 x 28 digits: LSTM 98.9 %, tanh RNN 35.0 % (Cooijmans et al. 2017)"


class Problem(NamedTuple):
    """A task at one lag (the digits have none) and its number of updates."""

    name: str
    lag: int | None
    task: Task
    steps: int

    def group(self, cell: str) -> str:
        """Returns the name of the trials of one network, without their phase."""
        return f"{self.name if self.lag is None else f'{self.name}_{self.lag}'}-{cell}"


def problems(config: "LongMemory") -> list[Problem]:
    """Returns all tasks at all their lags."""
    found = []
    for name, lag in product([name for name in config.tasks if name in OVER_LAGS], config.lags):
        with naming("lags", lag):
            found.append(Problem(name, lag, OVER_LAGS[name](lag), config.steps))
    digits = Problem("digits", None, tasks.Digits(), config.digits_steps)
    return found + [digits] * ("digits" in config.tasks)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongMemory(Config):
    """Which networks learn which tasks over which lags, and for how long."""

    steps: int = setting(1600, "updates of a trial")
    digits_steps: int = setting(2500, "updates of a trial on the digits, a few images repeated")
    tasks: tuple[str, ...] = setting(("recall", "digits"), "tasks to learn", choices=TASKS)
    lags: tuple[int, ...] = setting((10, 30, 100, 300), "steps to remember, where a task has a lag")
    cells: tuple[str, ...] = setting(CELLS, "networks to train", choices=CELLS)
    learning_rates: tuple[float, ...] = setting(RATES, "the grid to choose from")
    tuning_seeds: int = setting(3, "seeds to choose on, before those that are reported")
    batch_size: int = setting(16, "sequences an update")

    def __post_init__(self):
        super().__post_init__()
        problems(self)


SCALES = {
    "quick": LongMemory(
        cells=("rnn", "lstm", "lstm_chrono"), lags=(10, 30), seeds=4, steps=300, digits_steps=600,
        learning_rates=(1e-2,),
    ),
    "small": LongMemory(),
    "paper": LongMemory(
        lags=(10, 30, 100, 300, 1000), seeds=20, steps=10_000, digits_steps=10_000, hidden=128,
        batch_size=64,
    ),
}  # fmt: skip


def plan(config: LongMemory, records: Sequence[Record]) -> list[Group]:
    """Returns for each problem and network the tuning group, then the reported group."""
    groups = []
    for problem, cell in product(problems(config), config.cells):
        model = networks.network(cell, problem.task, config.hidden, config.engine)
        shared = problem.task, model, problem.steps, config.batch_size
        group = Group(problem.group(cell), *shared, None, "test")
        groups += tuning.tune_then_report(config, config.learning_rates, records, group)
    return groups


def summarise(config: LongMemory, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each problem and network, over the reported seeds."""
    return [
        row(problem, cell, ledger.group(records, f"{problem.group(cell)}-reported"))
        for problem, cell in product(problems(config), config.cells)
    ]


def row(problem: Problem, cell: str, records: Sequence[Record]) -> Row:
    """Returns one line of the table, from the records of one group."""
    results = ledger.results(records)
    counts = [(r["test_correct"], r["test_n"]) for r in results]
    solved = [is_solved(*answers) for answers in counts]
    steps = zip(ledger.first_steps(records, "metric", SOLVED), solved, strict=True)
    return {
        "task": problem.name,
        "lag": problem.lag,
        "network": networks.LABELS[cell],
        "learning_rate": results[0]["learning_rate"],
        "solved": statistics.wilson(sum(solved), len(solved)),
        "at_chance": sum(is_chance(*answers, problem.task.chance) for answers in counts),
        "accuracy": statistics.t_interval([c / n for c, n in counts], within=(0, 1)),
        "steps_to_success": statistics.median_steps([step if won else -1 for step, won in steps]),
        "diverged": sum(r["status"] == "diverged" for r in results),
    }


def claims(config: LongMemory, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on the longest lag of recall and on the digits.

    A network bridges a lag if half of all seeds or more solve it, by Wilson's interval.
    """
    lag, label = max(config.lags), networks.LABELS
    recall = {r["network"]: r["solved"] for r in rows if (r["task"], r["lag"]) == ("recall", lag)}
    digits = {r["network"]: r["accuracy"] for r in rows if r["task"] == "digits"}
    found = []
    if share := recall.get(label["lstm_chrono"]):
        said = f"An LSTM with chrono biases recalls a symbol after {lag} distractors"
        found.append(Claim(said, f"{share} seeds", CHRONO, above(share, 0.5)))
    if share := recall.get(label["rnn"]):
        said = f"A tanh RNN with the same budget does not, after {lag} distractors"
        found.append(Claim(said, f"{share} seeds", LONG_LAGS, below(share, 0.5)))
    if {label["lstm"], label["rnn"]} <= digits.keys():
        lstm, rnn = digits[label["lstm"]], digits[label["rnn"]]
        said = "Reading digits pixel by pixel, an LSTM errs less than a tanh RNN"
        ours = f"accuracy {lstm} against {rnn}"
        found.append(Claim(said, ours, PIXELS, above(lstm, rnn.high)))
    return found


def draw(config: LongMemory, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws success and accuracy against lag, and the accuracy on digits."""
    styles = figures.styles(list(networks.LABELS.values()))  # the same in every run
    pictures = [
        against_lag(task, [row for row in rows if row["task"] == task], styles)
        for task in config.tasks
        if task in OVER_LAGS
    ]
    if "digits" in config.tasks:
        pictures.append(on_digits([row for row in rows if row["task"] == "digits"], styles))
    return pictures


def against_lag(task: str, rows: Sequence[Row], styles: Mapping[str, Style]) -> Picture:
    """Draws success and accuracy of every network over the lags of one task."""
    figure, ((success, accuracy),) = figures.canvas(1, 2)
    lags = sorted({row["lag"] for row in rows})
    labels = list(dict.fromkeys(row["network"] for row in rows))
    for place, label in enumerate(labels):
        mine = sorted((row for row in rows if row["network"] == label), key=lambda row: row["lag"])
        x = [lag * 1.06 ** (place - len(labels) // 2) for lag in lags]  # side by side
        figures.error_bars(success, x, [row["solved"] for row in mine], styles[label], label)
        figures.error_bars(accuracy, x, [row["accuracy"] for row in mine], styles[label], label)
    figures.level(accuracy, OVER_LAGS[task](lags[0]).chance, "chance")
    for axes, name in ((success, "seeds that solve it"), (accuracy, "test accuracy, mean")):
        axes.set(xlabel="lag (steps)", ylabel=name, ylim=(-0.02, 1.02))
        figures.log_sizes(axes, lags)
        axes.set_xlim(lags[0] / 1.3, lags[-1] * 1.3)
    figures.legend(figure, success)
    caption = f"{task}: share of seeds with {SOLVED:.0%} of the test sequences right, and mean "
    caption += "test accuracy, with 95 % intervals (Wilson's, Student's)."
    return Picture(task, caption, figure)


def on_digits(rows: Sequence[Row], styles: Mapping[str, Style]) -> Picture:
    """Draws the test accuracy of every network on the digits."""
    figure, ((axes,),) = figures.canvas(1, 1, panel=(8, 4))
    figures.named_bars(axes, {row["network"]: row["accuracy"] for row in rows}, styles)
    figures.level(axes, tasks.Digits().chance, "chance")
    axes.set(ylabel="test accuracy, mean", ylim=(0, 1.03))
    caption = "digits, pixel by pixel: mean test accuracy over seeds, with Student's 95 % interval."
    return Picture("digits", caption, figure)


EXPERIMENT = Experiment("long_memory", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
