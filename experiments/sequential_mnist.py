"""An LSTM that reads an image pixel by pixel names at least 95 % of the handwritten digits.

An LSTM, a GRU and a tanh RNN read digits of 8 x 8 pixels, one pixel a time step; --networks has
five more. Learning rates are chosen on validation images and tuning seeds; the test accuracy is
that of other seeds. The rate falls to zero along half a cosine, and the input has noise.
--tasks=smnist,pmnist reads the 28 x 28 pixels of MNIST, in their order or permuted, from
--data_dir; files that are absent are fetched.

Command: scripts/run sequential_mnist
Cost: --quick a minute, by default five minutes, both on two cores; --scale=paper is for a GPU
Expect: test accuracy on the digits, in %
  LSTM      97.7
  GRU       97.3
  tanh RNN  97.5
Method: docs/experiments.md#sequential_mnist
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import product

from matplotlib.axes import Axes

import lstm_jax as lj
from experiments.common import mnist, networks, runner, tuning
from experiments.common.flags import Config, naming, setting
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax.report import figures, ledger, statistics
from lstm_jax.report.claims import above
from lstm_jax.tasks import Task

NOISE = 0.1  # standard deviation of the noise on a pixel
FAMILIES = {  # title of their learning curves -> network -> label
    "LSTMs": {
        "lstm": "LSTM",
        "lstm_chrono": "LSTM (chrono)",
        "urlstm": "LSTM (UR gates)",
        "layer_norm": "LSTM (layer norm)",
        "min_lstm": "minLSTM",
    },
    "other networks": {"gru": "GRU", "rnn": "tanh RNN", "irnn": "IRNN"},
}
LABELS = {cell: label for family in FAMILIES.values() for cell, label in family.items()}
CELLS = tuple(LABELS)
DEFAULT = ("lstm", "gru", "rnn")
TASKS: Mapping[str, Callable[["SequentialMNIST"], Task]] = {
    "digits": lambda config: lj.tasks.Digits(),
    "permuted_digits": lambda config: lj.tasks.Digits(permuted=True),
    "smnist": lambda config: mnist.MNIST(config.data_dir),
    "pmnist": lambda config: mnist.MNIST(config.data_dir, permuted=True),
}
MNIST = ("smnist", "pmnist")
COOIJMANS, BAI, GU = "Cooijmans et al. 2017", "Bai et al. 2018", "Gu et al. 2020, unchecked"
PUBLISHED = {  # network -> test accuracy in % on smnist and on pmnist, and the source
    "lstm": (98.9, 90.2, COOIJMANS),
    "urlstm": (99.28, 96.96, GU),
    "gru": (96.2, 87.3, BAI),
    "rnn": (35.0, 35.0, COOIJMANS),
    "irnn": (97.0, 82.0, COOIJMANS),
}
BARS = {"digits": 0.95, "smnist": 0.985, "pmnist": 0.92}  # of the claims on the LSTM


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequentialMNIST(Config):
    """Which networks read which images, and for how long."""

    seeds: int = setting(8, "networks reported for each task, each from its own seed")
    steps: int = setting(2500, "updates of a trial")
    hidden: int = setting(64, "hidden units")
    tasks: tuple[str, ...] = setting(("digits",), "images to read", choices=TASKS)
    networks: tuple[str, ...] = setting(DEFAULT, "networks to train", choices=CELLS)
    learning_rates: tuple[float, ...] = setting((3e-3, 1e-2), "the grid to choose from")
    tuning_seeds: int = setting(2, "seeds to choose on, before those that are reported")
    batch_size: int = setting(32, "images an update")
    data_dir: str = setting("", "folder of MNIST's four files; by default the user's cache")


SCALES = {
    "quick": SequentialMNIST(
        networks=("lstm", "rnn"), seeds=2, steps=600, hidden=32, learning_rates=(1e-2,)
    ),
    "small": SequentialMNIST(),
    "paper": SequentialMNIST(
        networks=CELLS, tasks=MNIST, steps=40_000, hidden=128, batch_size=100,
        learning_rates=(5e-4, 1e-3),
    ),
}  # fmt: skip


def plan(config: SequentialMNIST, records: Sequence[Record]) -> list[Group]:
    """Returns for each task and network the tuning group, then the reported group."""
    config = with_files(config)
    groups = []
    for task_name, cell in product(config.tasks, config.networks):
        task = TASKS[task_name](config)
        model = networks.network(cell, task, config.hidden, config.engine)
        shared = task, model, config.steps, config.batch_size
        group = Group(f"{task_name}-{cell}", *shared, None, "test", save_model=True)
        groups += tuning.tune_then_report(
            config, config.learning_rates, records, group,
            choose=tuning.least(lambda result: -result["validation_correct"]),
            decay=config.steps, input_noise=NOISE,
        )  # fmt: skip
    return groups


def with_files(config: SequentialMNIST) -> SequentialMNIST:
    """Returns the config with a folder that has MNIST, if a task needs it."""
    if not set(MNIST) & set(config.tasks):
        return config
    with naming("data_dir"):
        folder = mnist.folder_of(config.data_dir)
        mnist.read(folder)
    return dataclasses.replace(config, data_dir=folder)


def summarise(config: SequentialMNIST, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each task and network, over the reported seeds."""
    return [
        row(task, cell, ledger.results(records, f"{task}-{cell}-reported"))
        for task, cell in product(config.tasks, config.networks)
    ]


def row(task: str, cell: str, results: Sequence[Record]) -> Row:
    """Returns one line of the table, from the results of one group."""
    accuracies = [r["test_correct"] / r["test_n"] for r in results]
    return {
        "task": task,
        "network": LABELS[cell],
        "learning_rate": results[0]["learning_rate"],
        "accuracy": statistics.t_interval(accuracies, within=(0, 1)),
        "least": min(accuracies),
        "most": max(accuracies),
        "published": published(task, cell),
        "diverged": sum(r["status"] == "diverged" for r in results),
    }


def published(task: str, cell: str) -> str:
    """Returns the published accuracy of a network on MNIST, or a dash."""
    if task not in MNIST or cell not in PUBLISHED:
        return "-"
    *percent, source = PUBLISHED[cell]
    return f"{percent[MNIST.index(task)]} % ({source})"


def claims(config: SequentialMNIST, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on the accuracy of the LSTM, one for each task with a bar."""
    found = []
    for r in rows:
        if r["network"] == LABELS["lstm"] and r["task"] in BARS:
            bar, ours = BARS[r["task"]], r["accuracy"]
            said = f"{r['task']}, pixel by pixel: an LSTM names at least {100 * bar:g} %"
            known = r["published"] if r["task"] in MNIST else "-"
            verdict = above(ours, bar)
            found.append(Claim(said, f"accuracy {ours}", known, verdict))
    return found


def numbers(config: SequentialMNIST, rows: Sequence[Row]) -> list[Row]:
    """Returns the test accuracy of each network on each task."""
    return [{"task": r["task"], "network": r["network"], "accuracy": r["accuracy"]} for r in rows]


def draw(config: SequentialMNIST, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws the test accuracies and the learning curves of two families of networks."""
    figure, panels = figures.canvas(len(config.tasks), 1 + len(FAMILIES))
    for task, (accuracy, *curves) in zip(config.tasks, panels, strict=True):
        on_test(accuracy, task, [r for r in rows if r["task"] == task])
        for axes, (title, family) in zip(curves, FAMILIES.items(), strict=True):
            learning(axes, task, [c for c in config.networks if c in family], records)
            axes.set_title(f"{task}: {title}")
    caption = "Left: mean test accuracy over seeds, with Student's 95 % interval. Then the running "
    caption += "accuracy on training images."
    return [Picture("sequential_mnist", caption, figure)]


def on_test(axes: Axes, task: str, rows: Sequence[Row]) -> None:
    """Draws the test accuracy of every network on one task."""
    style = figures.styles(["accuracy"])["accuracy"]
    places = range(len(rows))
    accuracies = [r["accuracy"] for r in rows]
    figures.error_bars(axes, places, accuracies, {**style, "linestyle": "none"}, "accuracy")
    if task in BARS:
        figures.level(axes, BARS[task], "bar of the claim")
    axes.set_xticks(places, [r["network"] for r in rows], rotation=40, ha="right")
    axes.set(ylabel="test accuracy", title=task, xlim=(-0.5, len(rows) - 0.5))


def learning(axes: Axes, task: str, cells: Sequence[str], records: Sequence[Record]) -> None:
    """Draws the running training accuracy of some networks on one task."""
    for cell, style in figures.styles(cells).items():
        mine = ledger.group(records, f"{task}-{cell}-reported")
        figures.band(axes, *ledger.curve(mine, "metric", within=(0, 1)), style, LABELS[cell])
    axes.set(xlabel="updates", ylabel="training accuracy", ylim=(-0.03, 1.03))
    if cells:  # below the curves, which leave no corner free
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=12)


EXPERIMENT = Experiment(
    "sequential_mnist", str(__doc__), SCALES, plan, summarise, draw, claims=claims, numbers=numbers
)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
