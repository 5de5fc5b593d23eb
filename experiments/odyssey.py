"""No LSTM variant is much better than the vanilla LSTM: the search space odyssey at a small scale.

Nine LSTMs of Greff et al. (2017) train from random settings on chorales by Bach and on digits read
a few pixels at a time. Welch's tests compare the best tenth of each variant with vanilla's.
Functional ANOVA shares the variance among the hyperparameters. The rules for the verdicts are in
experiments/common/findings.py.

Command: scripts/run odyssey
Cost: --quick a minute, by default 13 minutes, both on two cores; --scale=paper is for a GPU
Expect: the five findings of the paper
  1  no variant is better than vanilla           reproduces
  2  forget gate, output activation critical     does not reproduce
  3  CIFG and NP do no harm                      reproduces
  4  learning rate matters most, width second    reproduces partly: 73 and 53 % of the variance
  5  hyperparameters are nearly independent      reproduces: all pairs 10 and 15 %
Method: docs/experiments.md#odyssey
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import log
from typing import Any, NamedTuple

import numpy as np

from experiments.common import findings, networks, runner
from experiments.common.findings import TaskResults
from experiments.common.flags import Config, naming, need, setting
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax import cells, tasks
from lstm_jax.nn import initializers
from lstm_jax.report import charts, figures, importance, ledger, statistics
from lstm_jax.report.importance import Forest
from lstm_jax.report.space import Parameter
from lstm_jax.runs import RunDirectory
from lstm_jax.search import space as spaces
from lstm_jax.search import widths
from lstm_jax.tasks import Task
from lstm_jax.training import State, make_trials

VARIANTS = tuple(cells.ODYSSEY)
VANILLA = VARIANTS[0]
BEST = 0.1
OPTIMIZER = "nesterov"
LABELS = {VANILLA: "V"}
WORSE, BETTER = "significantly worse", "significantly better"
PAIR, FINDING = " x ", "finding"  # between the settings of a pair; the task of a row of the table


class Problem(NamedTuple):
    """A task of the odyssey."""

    title: str  # of its figure
    make: Callable[[int], Task]  # pixels a step -> the task
    constant: float  # the loss, in nats, of the best answer that ignores the input
    unit: str  # of the loss


TASKS: Mapping[str, Problem] = {
    "chorales": Problem("Bach's chorales", lambda _: tasks.Chorales(), 11.66, "nats a frame"),
    "digits": Problem("digits", lambda p: tasks.Digits(pixels=p), log(10), "nats"),
    "permuted": Problem(
        "permuted digits", lambda p: tasks.Digits(pixels=p, permuted=True), log(10), "nats"
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Odyssey(Config):
    """How many settings of which variants try which tasks, and for how long."""

    seeds: int = setting(24, "settings drawn for each variant and task", (11, 10_000))
    steps: int = setting(4000, "updates of a trial")
    hidden: int = setting(64, "the most hidden units")
    narrowest: int = setting(8, "the fewest hidden units")
    variants: tuple[str, ...] = setting(VARIANTS, "variants to train", choices=VARIANTS)
    tasks: tuple[str, ...] = setting(("chorales", "digits"), "tasks to learn", choices=TASKS)
    pixels: int = setting(2, "of a digit, read at every step: a power of two", (1, 64))
    batch_size: int = setting(8, "sequences an update")

    def __post_init__(self):
        super().__post_init__()
        need(VANILLA in self.variants, "variants", self.variants, f"need {VANILLA} among them")
        right = f"need fewer than --hidden={self.hidden}, the most"
        need(self.narrowest < self.hidden, "narrowest", self.narrowest, right)
        with naming("pixels", self.pixels):
            tasks.Digits(pixels=self.pixels)

    @property
    def last_seed(self) -> int:
        """The greatest seed of all variants and tasks."""
        return self.seed + self.seeds * len(VARIANTS) * len(TASKS) - 1


SCALES = {
    "quick": Odyssey(
        seeds=12, steps=600, hidden=16, narrowest=9, variants=(VANILLA, "NFG", "NP"),
        tasks=("digits",), pixels=8,
    ),
    "small": Odyssey(),
    "paper": Odyssey(
        seeds=200, steps=50_000, hidden=200, narrowest=20, tasks=tuple(TASKS), pixels=1
    ),
}  # fmt: skip


def space(config: Odyssey) -> list[Parameter]:
    """Returns the searched space."""
    return [
        Parameter("learning_rate", spaces.Log(1e-3, 10.0)),
        Parameter("hidden", spaces.LogInt(config.narrowest, config.hidden)),
        Parameter("one_minus_momentum", spaces.Log(0.01, 1.0)),
        Parameter("input_noise", spaces.Uniform(0.0, 1.0)),
    ]


def drawn(config: Odyssey, task: str, variant: str) -> list[dict[str, Any]]:
    """Returns the settings of a variant on a task: a Latin hypercube (McKay et al. 1979).

    Each of n settings lies in its own n-th of every range.
    """
    place = list(TASKS).index(task), VARIANTS.index(variant)
    rng, n, over = np.random.default_rng((config.seed, *place)), config.seeds, space(config)
    shares = rng.permuted(np.tile(np.arange(n), (len(over), 1)), axis=1) + rng.random((4, n))
    columns = [p.values(share / n) for p, share in zip(over, shares, strict=True)]
    first = config.seed + n * (place[0] * len(VARIANTS) + place[1])
    seeds = range(first, first + n)
    names = ["seed", *(parameter.name for parameter in over)]
    return [dict(zip(names, row, strict=True)) for row in zip(seeds, *columns, strict=True)]


def plan(config: Odyssey, records: Sequence[Record]) -> list[Group]:
    """Returns a group for each task, variant and bucket of widths."""
    groups = []
    for task, variant in product(config.tasks, config.variants):
        points = drawn(config, task, variant)
        least = widths.bucket(config.narrowest + 1)  # not one for the narrowest alone
        buckets = [max(least, widths.bucket(point["hidden"])) for point in points]
        for bucket in sorted(set(buckets)):
            some = [p for p, of in zip(points, buckets, strict=True) if of == bucket]
            groups.append(group(config, task, variant, bucket, some))
    return groups


def group(
    config: Odyssey, task: str, variant: str, bucket: int, points: Sequence[Mapping[str, Any]]
) -> Group:
    """Returns the trials of one bucket of widths."""
    problem = TASKS[task].make(config.pixels)
    cell, normal = cells.odyssey(variant, bucket), initializers.normal()
    model = networks.spec(cell, problem, config.engine, w_x=normal, w_h=normal)
    trials = make_trials(
        seed=[p["seed"] for p in points],
        learning_rate=[p["learning_rate"] for p in points],
        b1=[1 - p["one_minus_momentum"] for p in points],
        input_noise=[p["input_noise"] for p in points],
    )
    known = {"task": task, "variant": variant}
    group = Group(
        f"{task}-{variant}-{bucket}", problem, model, config.steps, config.batch_size, trials,
        "test", optimizer=OPTIMIZER, curve_points=10,
        labels=[{**known, **{p.name: point[p.name] for p in space(config)}} for point in points],
    )  # fmt: skip
    hidden = tuple(point["hidden"] for point in points)
    return group._replace(initial_state=functools.partial(initial_state, hidden, group))


def initial_state(hidden: Sequence[int], group: Group, run: RunDirectory) -> State:
    """Returns the initial state of a group's trials in their own widths."""
    assert group.trials is not None
    settings = {"batch_size": group.batch_size, "optimizer": group.optimizer}
    return widths.crop(group.task, hidden, group.model, group.trials, **settings)


def loss(result: Record) -> float:
    """Returns a trial's test loss, at most that of the constant answer."""
    constant = TASKS[result["task"]].constant
    value = result["test_loss"]
    return constant if value is None or result["status"] == "diverged" else min(value, constant)


def of_variants(config: Odyssey, results: Sequence[Record]) -> dict[str, list[float]]:
    """Returns the losses of each variant's trials on one task, in order."""
    return {v: [loss(r) for r in results if r["variant"] == v] for v in config.variants}


def best(losses: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Returns the best tenth of each variant."""
    return {v: statistics.best_share(values, BEST) for v, values in losses.items()}


def forest(config: Odyssey, results: Sequence[Record]) -> Forest | None:
    """Returns a forest on the losses without variant means; None if all are equal."""
    means = {v: float(np.mean(values)) for v, values in of_variants(config, results).items()}
    trials = [{**r, "loss_above_mean": loss(r) - means[r["variant"]]} for r in results]
    if len({trial["loss_above_mean"] for trial in trials}) < 2:
        return None
    return importance.fit(space(config), trials, "loss_above_mean")


def analyse(
    config: Odyssey, task: str, results: Sequence[Record], grown: Forest | None
) -> TaskResults:
    """Returns the results of one task."""
    tenth, constant = best(of_variants(config, results)), TASKS[task].constant
    learnt = float(np.median(tenth[VANILLA])) / constant
    gain = constant - float(np.mean(tenth[VANILLA]))
    effects, explained = [], 0.0
    if grown is not None and grown.explained > 0:
        effects, explained = importance.effects(grown), grown.explained
    return TaskResults(learnt, gain, statistics.against(tenth, VANILLA), effects, explained)


def of_task(records: Sequence[Record], task: str) -> list[Record]:
    """Returns the records' results of one task."""
    return [r for r in ledger.results(records) if r["task"] == task]


def analyse_all(
    config: Odyssey, records: Sequence[Record]
) -> tuple[dict[str, TaskResults], dict[str, Forest]]:
    """Returns the results of every task, and the forests of the hyperparameters."""
    analyses, forests = {}, {}
    for task in config.tasks:
        results = of_task(records, task)
        grown = forest(config, results)
        analyses[task] = analyse(config, task, results, grown)
        forests |= {} if grown is None else {task: grown}
    return analyses, forests


def summarise(config: Odyssey, records: Sequence[Record]) -> list[Row]:
    """Returns rows for variants against vanilla, shares of the variance, and verdicts."""
    analyses, _ = analyse_all(config, records)
    rows = []
    for task, found in analyses.items():
        rows += variants(config, task, of_task(records, task), found) + shares(task, found)
    for number, said in findings.verdicts(analyses).items():
        rows.append(row(FINDING, f"{number}. {findings.CLAIMS[number]}", verdict=said))
    return rows


def claims(config: Odyssey, rows: Sequence[Row]) -> list[Claim]:
    """Returns the paper's findings with the results here."""
    tried = [row for row in rows if row["above_vanilla"] is not None]
    shared = [row for row in rows if row["share"] is not None]
    mains = [row for row in shared if PAIR not in row["what"]]
    better = [f"{r['task']}: {r['what']}" for r in tried if r["verdict"] == BETTER]
    pairs = dict.fromkeys((r["task"] for r in shared), 0.0)
    for r in shared:
        pairs[r["task"]] += r["share"] if r not in mains else 0.0
    ours = [
        "; ".join(better) or "none",
        gaps(tried, findings.CRITICAL),
        gaps(tried, findings.HARMLESS),
        "; ".join("{task}: {what} {share:.2f} [{low:.2f}, {high:.2f}]".format(**r) for r in mains)
        or "-",
        "; ".join(f"{task}: all pairs {share:.2f}" for task, share in pairs.items()) or "-",
    ]
    found = zip((row for row in rows if row["task"] == FINDING), ours, strict=True)
    return [Claim(row["what"], mine, "Greff et al. 2017", row["verdict"]) for row, mine in found]


def gaps(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Returns the loss of these variants above vanilla's as text, with p."""
    some = (row for row in rows if row["what"] in names)
    words = "{task}: {what} {above_vanilla:.2f} [{low:.2f}, {high:.2f}] nats (p {p:.2g})"
    return "; ".join(words.format(**row) for row in some) or "-"


def variants(
    config: Odyssey, task: str, results: Sequence[Record], found: TaskResults
) -> list[Row]:
    """Returns a row for each variant on a task."""
    losses = of_variants(config, results)
    tests = {test.name: test for test in found.tests}
    rows = []
    for name, tenth in best(losses).items():
        mine = [r for r in results if r["variant"] == name]
        values = {"trials": len(mine), "best_tenth": float(np.mean(tenth))}
        values["diverged"] = sum(r["status"] == "diverged" for r in mine)
        if test := tests.get(name):
            value, low, high = test.difference
            values |= {"above_vanilla": value, "low": low, "high": high, "p": test.corrected}
        rows.append(row(task, name, said(test) if test else "", **values))
    return rows


def said(test: statistics.Comparison) -> str:
    """Returns the relation of a variant to vanilla in words."""
    if not findings.significant(test):
        return "not significantly different"
    return WORSE if test.difference.value > 0 else BETTER


def shares(task: str, found: TaskResults) -> list[Row]:
    """Returns a row for each hyperparameter's and pair's share of the variance."""
    known, rows = f"of the {found.explained:.0%} explained", []
    for effect in found.effects:
        value, low, high = effect.share
        name = PAIR.join(map(charts.words, effect.parameters))
        rows.append(row(task, name, share=value, low=low, high=high, verdict=known))
    return rows


def row(task: str, what: str, verdict: str, **values: Any) -> Row:
    """Returns a row of the table, with the interval of its difference or share."""
    columns = ("trials", "diverged", "best_tenth", "above_vanilla", "share", "low", "high", "p")
    return {"task": task, "what": what, "verdict": verdict} | {c: values.get(c) for c in columns}


def draw(config: Odyssey, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws the best tenths as boxes, and the importance of hyperparameters."""
    analyses, grown = analyse_all(config, records)
    verdicts = findings.verdicts(analyses)
    return [boxes(config, records, analyses, verdicts), *importances(analyses, grown, verdicts)]


def boxes(
    config: Odyssey,
    records: Sequence[Record],
    analyses: Mapping[str, TaskResults],
    verdicts: Mapping[int, str],
) -> Picture:
    """Draws the best tenth of every variant, a panel for each task."""
    figure, panels = figures.canvas(len(analyses), 1, panel=(9.6, 4.4))
    for axes, (task, found) in zip(panels.flat, analyses.items(), strict=True):
        tenth, problem = best(of_variants(config, of_task(records, task))), TASKS[task]
        charts.boxes(axes, tenth, found.tests, f"test loss, {problem.unit}", LABELS)
        reached = "" if found.reached else " (not learned)"
        axes.set_title(f"{problem.title}{reached}", loc="left", pad=20)
    caption = (
        f"The best tenth of {config.seeds} random settings of every variant, by test loss: less is "
        "better. Grey is vanilla, hatched variants differ significantly (Welch's test, "
        f"corrected after Holm). {findings_text(verdicts, (1, 2, 3))}"
    )
    return Picture("variants", caption, figure)


def importances(
    analyses: Mapping[str, TaskResults], grown: Mapping[str, Forest], verdicts: Mapping[int, str]
) -> list[Picture]:
    """Draws shares of the variance and marginal losses, a row for each task."""
    able = [task for task, found in analyses.items() if found.effects]
    if not able:
        return []
    figure, panels = figures.canvas(len(able), 3, panel=(5.2, 4.6))
    style = figures.styles(["marginal"])["marginal"]
    for (bars, *curves), task in zip(panels, able, strict=True):
        found, problem = analyses[task], TASKS[task]
        charts.importance_bars(bars, found.effects, most=7)
        bars.set_title(f"{problem.title}: {found.explained:.0%} explained", loc="left")
        for axes, name in zip(curves, ("learning_rate", "hidden"), strict=True):
            curve = importance.curve(grown[task], name)
            charts.marginal_curve(axes, curve, f"above mean, {problem.unit}", style)
    caption = (
        "Left: the share of the variance of the test loss by hyperparameter and by pair, with 95 % "
        f"intervals. Right: the mean loss over all else. {findings_text(verdicts, (4, 5))}"
    )
    return [Picture("importances", caption, figure)]


def findings_text(verdicts: Mapping[int, str], numbers: Sequence[int]) -> str:
    """Returns the paper's findings with their verdicts as one sentence."""
    parts = [f"({n}) {findings.CLAIMS[n]}: {verdicts[n]}" for n in numbers]
    return f"Greff et al. found: {'; '.join(parts)}."


EXPERIMENT = Experiment("odyssey", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
