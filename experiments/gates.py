"""An LSTM that learned to add writes its cell at the marks; one that recalls latches.

LSTMs with chrono biases learn two tasks: recall of a marked symbol after distractors, and the sum
of the two marked numbers of a sequence. `trace` then gives the gates on 200 test sequences. Each
gate is also held open, to measure the accuracy without it. A claim reproduces if its 95 % interval
over the seeds that solve the task lies above the bar.

Command: scripts/run gates
Cost: --quick less than a minute, by default a minute, both on two cores; --scale=paper is for a GPU
Expect: shares in %
                          adding  recall
  written at the marks    18      26
  written elsewhere       0.5     34
  right with i held open  0.2     76
  right with f held open  2       100
  right with o held open  0.7     100
Method: docs/experiments.md#gates
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes

from experiments.common import networks, runner, tuning
from experiments.common.flags import LENGTH, Config, setting
from experiments.common.gate_use import (
    FATES,
    HELD,
    NETWORKS,
    SELECTORS,
    SEQUENCES,
    gate_use,
)
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax import tasks
from lstm_jax.report import figures, interactive, ledger, statistics
from lstm_jax.report.claims import exceeds
from lstm_jax.report.statistics import SOLVED, Estimate, is_solved
from lstm_jax.report.traces import Panel, heat_maps
from lstm_jax.tasks import Task

WRITTEN = ("added to", "overwritten")
PLACES = ("marked", "elsewhere")
DECAY = "decay time in steps"
MORE = "share of positions written", "marked minus other steps"
HINT = "Choose a network, a sequence and a unit. Units with the longest memory are on top."
WITHIN = {DECAY: (0, np.inf), MORE[0]: (-1, 1)}  # others are shares
GREFF = "the forget gate is one of the two most critical components (Greff et al. 2017)"
TASKS: dict[str, Callable[[int], Task]] = {
    "recall": lambda lag: tasks.Recall(lag=lag, symbols=4),
    "adding": lambda lag: tasks.Adding(length=lag),
}
ROWS = {"recall": ("0", "1", "2", "3", "mark"), "adding": ("value", "mark")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gates(Config):
    """Which tasks are learned, over which lag, and for how long at most."""

    seeds: int = setting(10, "networks for each task, each from its own seed")
    steps: int = setting(6000, "updates of a network that does not learn its task earlier")
    hidden: int = setting(16, "hidden units")
    tasks: tuple[str, ...] = setting(tuple(TASKS), "tasks to learn", choices=TASKS)
    lag: int = setting(40, "steps to remember; of adding, those of the sequence", (2, LENGTH[1]))
    learning_rate: float = setting(1e-2, "Adam's")
    batch_size: int = setting(16, "sequences an update")


SCALES = {
    "quick": Gates(tasks=("recall",), seeds=4, lag=10, steps=1000, hidden=8),
    "small": Gates(),
    "paper": Gates(seeds=20, lag=200, steps=20_000, hidden=64),
}


def plan(config: Gates, records: Sequence[Record]) -> list[Group]:
    """Returns one group for each task."""
    trials = tuning.trials(config.reported, [config.learning_rate])
    groups = []
    for name in config.tasks:
        task = TASKS[name](config.lag)
        model = networks.network("lstm_chrono", task, config.hidden, config.engine)
        measure = functools.partial(gate_use, task, model, config.batching)
        groups.append(
            Group(name, task, model, config.steps, config.batch_size, trials, "test",
                  measure=measure)
        )  # fmt: skip
    return groups


def learnt(records: Sequence[Record], task: str) -> list[Record]:
    """Returns the results of the networks that solve a task."""
    results = ledger.results(records, task)
    return [r for r in results if is_solved(r["test_correct"], r["test_n"])]


def summarise(config: Gates, records: Sequence[Record]) -> list[Row]:
    """Returns a line for each number: its mean over the seeds that solve the task."""
    rows = []
    for task in config.tasks:
        good = learnt(records, task)
        known = {"task": task, "solved": statistics.wilson(len(good), config.seeds)}
        for (quantity, case), values in numbers(good).items():
            mean = statistics.interval(values, WITHIN.get(quantity, (0, 1)))
            rows.append({**known, "quantity": quantity, "case": case, "mean": mean})
    return rows


def numbers(good: Sequence[Record]) -> dict[tuple[str, str], list[float]]:
    """Returns (quantity, case) -> one number for each network that solves its task."""
    found = {("accuracy", "intact"): [r["test_correct"] / r["test_n"] for r in good]}
    for gate, how in product(SELECTORS, HELD):
        found["accuracy", f"{gate} held at {how}"] = [r["left"][gate][how] for r in good]
    for gate, (near, name) in product(SELECTORS, (("0", "near_0"), ("1", "near_1"))):
        found["share of gate values", f"{gate} near {near}"] = [r[name][gate] for r in good]
    for name, place in (("longest", 0), ("median", 0.5), ("shortest", 1)):
        decay = [[np.inf if d is None else d for d in r["decay"]] for r in good]
        found[DECAY, name] = [d[round(place * (len(d) - 1))] for d in decay]
    for place, (n, fate) in product(PLACES, enumerate(FATES)):
        found[f"share of positions, {place}", fate] = [r["fates"][place][n] for r in good]
    found[MORE] = [written(r, "marked") - written(r, "elsewhere") for r in good]
    return found


def written(result: Record, place: str) -> float:
    """Returns the share of positions that are added to or overwritten."""
    return sum(result["fates"][place][FATES.index(fate)] for fate in WRITTEN)


def claims(config: Gates, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claims on writing at marks and on the need for each gate."""
    found = []
    for task in config.tasks:
        at = {(r["quantity"], r["case"]): r["mean"] for r in rows if r["task"] == task}
        more = at[MORE]
        said = f"{task}: more of the cell is written at marked steps than elsewhere"
        found.append(Claim(said, f"{more} more of the positions", "-", exceeds(more, 0.0)))
        for gate in SELECTORS:
            left = at["accuracy", f"{gate} held at 1"]
            said = f"{task}: with {gate} held open a trained LSTM no longer solves its task"
            published = GREFF if gate == "f" else "-"
            found.append(Claim(said, f"accuracy {left}", published, exceeds(SOLVED, left)))
    return found


def draw(config: Gates, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws numbers over all seeds, one network on one sequence, and interactive maps."""
    first = {task: ledger.results(records, task)[0]["shown"][0] for task in config.tasks}
    maps = [one_sequence(task, shown) for task, shown in first.items()]
    charts = (interactive.script(), interactive.traces("traces", views(config, records), HINT))
    return [over_seeds(config, rows, records), maps[0]._replace(interactive=charts), *maps[1:]]


def over_seeds(config: Gates, rows: Sequence[Row], records: Sequence[Record]) -> Picture:
    """Draws the accuracy with a gate held, and the cell over time."""
    figure, panels = figures.canvas(len(config.tasks), 2, panel=(6, 4.2))
    for task, (left, when) in zip(config.tasks, panels, strict=True):
        at = {(r["quantity"], r["case"]): r["mean"] for r in rows if r["task"] == task}
        accuracies(left, at, TASKS[task](config.lag).chance)
        left.set_title(task)
        good = learnt(records, task)
        if len(good) >= 2:
            over_time(when, good)
    for axes in panels[0]:
        handles, labels = axes.get_legend_handles_labels()
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.1), "ncols": 3, "fontsize": 12}
        axes.legend(handles, labels, **place)
    caption = (
        "Networks that solve their task, means over seeds with Student's 95 % interval, on "
        f"{SEQUENCES} test sequences. Left: accuracy with one gate held. Right: the kinds of cell "
        "positions at each step."
    )
    return Picture("gates", caption, figure)


def accuracies(axes: Axes, at: Mapping[tuple[str, str], Estimate], chance: float) -> None:
    """Draws the accuracy with one gate held, side by side at 1 and at its mean."""
    names = [f"held at {how}" for how in HELD]
    for offset, (name, style) in zip((-0.1, 0.1), figures.styles(names).items(), strict=True):
        y = [at["accuracy", f"{gate} {name}"] for gate in SELECTORS]
        x = [n + offset for n in range(len(SELECTORS))]
        figures.error_bars(axes, x, y, {**style, "linestyle": "none"}, name)
    axes.set_xticks(range(len(SELECTORS)), SELECTORS)
    figures.level(axes, at["accuracy", "intact"].value, "intact")
    figures.level(axes, chance, "chance")
    axes.set(xlabel="gate", ylabel="test accuracy", ylim=(-0.02, 1.02))


def over_time(axes: Axes, good: Sequence[Record]) -> None:
    """Draws the shares of the kinds of cell positions against the step."""
    shares = np.array([r["when"] for r in good])  # [networks, T, fates]
    for n, (fate, style) in enumerate(figures.styles(FATES).items()):
        y = [statistics.interval(column, (0, 1)) for column in shares[:, :, n].T]
        figures.band(axes, range(len(y)), y, style, fate)
    axes.set(xlabel="step", ylabel="share of positions", ylim=(-0.02, 1.02))


def one_sequence(task: str, sequence: Record) -> Picture:
    """Draws heat maps of one network on one sequence."""
    caption = (
        f"{task}: one network on one test sequence, one row a unit, the longest memory on top; "
        "cell values beyond 1 saturate. The first figure has all networks."
    )
    return Picture(f"trace-{task}", caption, heat_maps(panels_of(task, sequence)))


def panels_of(task: str, sequence: Record) -> list[Panel]:
    """Returns the input, the three gates, and the values they scale."""
    return [
        Panel("input", sequence["input"], 0, ROWS[task]),
        *(Panel(f"gate {name}", sequence[name]) for name in SELECTORS),
        Panel("candidate g", sequence["g"], -1),
        Panel("cell c", sequence["c"], -1),
        Panel("hidden h", sequence["h"], -1),
    ]


def views(config: Gates, records: Sequence[Record]) -> dict[str, dict[str, list[Panel]]]:
    """Returns network -> sequence -> panels, of all shown networks."""
    found = {}
    for task in config.tasks:
        for result in ledger.results(records, task)[:NETWORKS]:
            right = f"{result['test_correct'] / result['test_n']:.0%} right"
            found[f"{task}, seed {result['seed']} ({right})"] = {
                f"sequence {n + 1}, answer {sequence['answer']:g}": panels_of(task, sequence)
                for n, sequence in enumerate(result["shown"])
            }
    return found


EXPERIMENT = Experiment("gates", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
