"""A sweep trains thousands of settings of one recurrent network, in a space given on one line.

Settings that differ in numbers alone share one compiled program. Widths share programs in buckets
of powers of two; every other structure has its own. Strategies are `grid`, `random`, `halving` and
`optuna`. Validation ranks the configurations; the best train again from fresh seeds and are
reported on test sequences.

Command: scripts/run sweep --space="learning_rate=log:1e-4:1e-1 forget_bias=uniform:-2:6 clip=1"
Cost: --quick a minute, by default a minute, both on two cores; --scale=paper is for a GPU
Expect: on adding at T = 50, learning rates of the three best configurations between 1e-2 and 1e-1
Method and the language of spaces: docs/experiments.md#sweep
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.common import networks, runner, searching
from experiments.common.flags import (
    TRIALS,
    Config,
    naming,
    need,
    need_few,
    setting,
    spread,
    whole,
)
from experiments.common.plan import Experiment, Group
from experiments.common.searching import Candidate, Found, Search
from lstm_jax import cells, tasks
from lstm_jax.report import charts, figures, importance, interactive, statistics
from lstm_jax.report.figures import Picture
from lstm_jax.report.importance import Effect, Forest
from lstm_jax.report.ledger import Record
from lstm_jax.report.space import Parameter, column, points
from lstm_jax.report.statistics import is_solved
from lstm_jax.report.tables import Row
from lstm_jax.search import space as search
from lstm_jax.search import studies, widths
from lstm_jax.search.space import Space
from lstm_jax.tasks import Task
from lstm_jax.tasks.base import endless
from lstm_jax.training import optimizers
from lstm_jax.training.fit import footprint

STRATEGIES = ("grid", "random", "halving", "optuna")
NETWORKS = (*networks.LABELS, *networks.CATALOGUE)
TASKS: Mapping[str, Callable[[int], Task]] = {
    "adding": lambda lag: tasks.make("adding", length=lag),
    "recall": lambda lag: tasks.make("recall", lag=lag),
    "copy_memory": lambda lag: tasks.make("copy_memory", lag=lag),
    "digits": lambda lag: tasks.make("digits"),
}
ON_A_CPU = 32  # places of a device: with map more are no faster, and results come later
SHARE = 0.8  # of a device's memory
ENOUGH = 20  # the least trials of a forest
ASKINGS = 10  # the least batches of optuna with --batch=auto


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Config):
    """The space of a search, its strategy, and its budget."""

    seeds: int = setting(5, "fresh seeds of each reported configuration")
    space: str = setting(
        "learning_rate=log:1e-4:1e-1 forget_bias=uniform:-2:6 clip=1",
        "the searched space",
    )
    strategy: str = setting("random", "how", choices=STRATEGIES)
    trials: int = setting(60, "configurations to try; a grid tries all of its own")
    tuning_seeds: int = setting(1, "seeds of each configuration, before those that are reported")
    metric: str = setting("loss", "ranking metric on validation", choices=searching.METRICS)
    batch: str = setting("auto", "trials trained at once (R), auto: as many as fit the memory")
    points: int = setting(5, "grid: values of each range", (2, 10_000))
    eta: int = setting(3, "halving: one in this many continues", searching.ETA)
    rungs: int = setting(4, "halving: rungs, the last at the end", searching.RUNGS)
    sampler: str = setting("tpe", "optuna", choices=studies.SAMPLERS)
    best: int = setting(3, "configurations to report", TRIALS)
    task: str = setting("adding", "the task", choices=TASKS)
    lag: int = setting(50, "steps to remember, or the length, where a task has one")
    cell: str = setting("lstm", "the network", choices=NETWORKS)
    depth: int = setting(1, "layers")
    optimizer: str = setting("adam", "the optimiser", choices=optimizers.DIRECTIONS)
    batch_size: int = setting(16, "sequences an update")

    def __post_init__(self):
        super().__post_init__()
        known = self.batch.isdecimal() and TRIALS[0] <= int(self.batch) <= TRIALS[1]
        right = f"need {spread(TRIALS)}, or auto"
        need(known or self.batch == "auto", "batch", self.batch, right)
        self._check_space()
        count = _count(self)
        if self.strategy == "grid":
            right = f"a grid of {count} configurations, need at most {TRIALS[1]}"
            need(count <= TRIALS[1], "points", self.points, right)
        need_few(trials=count, tuning_seeds=self.tuning_seeds)
        need_few(best=self.best, seeds=self.seeds)
        right = f"need at most {count}, as --trials or --points"
        need(self.best <= count, "best", self.best, right)
        if self.strategy == "optuna":
            with naming("strategy", self.strategy):
                studies.check("tpe")
            with naming("sampler", self.sampler):
                studies.check(self.sampler)
        if self.strategy == "halving":
            searching.need_rungs(self.trials, self.steps, self.eta, self.rungs)

    def _check_space(self) -> None:
        with naming("space"):
            space = space_of(self)
            for cell in _values(space, "cell", self.cell):
                search.bias_blocks(dict(space.parameters), _cell(cell, 2))
                search.zoneout_states(dict(space.parameters), _cell(cell, 2))
        with naming("space") if "lag" in space else naming("lag", self.lag):
            for lag in _values(space, "lag", self.lag):
                TASKS[self.task](lag)


def space_of(config: Sweep) -> Space:
    """Returns the searched space.

    Raises:
      ValueError: for an impossible space.
    """
    structure: dict[str, Any] = {"cell": NETWORKS, "optimizer": tuple(optimizers.DIRECTIONS)}
    for name in searching.STRUCTURE:
        structure[name] = structure.pop(name, None) or whole(Sweep, name)
    if config.task == "digits":
        del structure["lag"]
    return search.parse(config.space, structure)


def _count(config: Sweep) -> int:
    space = space_of(config)
    return space.grid_size(config.points) if config.strategy == "grid" else config.trials


def _values(space: Space, name: str, given: Any) -> tuple[Any, ...]:
    """Returns possible values of a parameter, the ends of a range; `given` if absent."""
    return tuple(space[name].ends()) if name in space else (given,)


def _cell(name: str, hidden: int) -> cells.Cell:
    return networks.network(name, TASKS["adding"](2), hidden, "auto").cell


SCALES = {
    "quick": Sweep(trials=16, steps=200, lag=20, hidden=16, best=2, seeds=3),
    "small": Sweep(),
    "paper": Sweep(trials=1000, steps=10_000, lag=200, hidden=128, batch_size=64, seeds=10),
}


def search_of(config: Sweep) -> Search:
    """Returns the common settings of all groups.

    Raises:
      ValueError: for widths that a cell cannot have.
    """
    space = space_of(config)
    given = {name: getattr(config, name) for name in searching.STRUCTURE}
    for cell in _values(space, "cell", config.cell):
        odd = next((h for h in _widths(space, config.hidden) if widths.bucket(h) != h), None)
        if odd is not None:
            with naming("space") if "hidden" in space else naming("hidden", odd):
                widths.check_cell(_cell(cell, odd))
    places = int(config.batch)
    task = functools.partial(_task, config.task, config.metric)
    return Search(space, given, task, config.steps, config.engine, places, config.metric)


def candidates(config: Sweep, space: Space) -> list[Candidate]:
    """Returns the configurations of a grid, of random search, or of the first rung."""
    seeds = _tuning_seeds(config)
    if config.strategy == "grid":
        points = space.grid(config.points)
    else:
        points = [space.draw(config.seed, i) for i in range(config.trials)]
    return [Candidate(i, point, seeds) for i, point in enumerate(points)]


def _tuning_seeds(config: Sweep) -> tuple[int, ...]:
    return tuple(range(config.seed, config.seed + config.tuning_seeds))


def find(config: Sweep, records: Sequence[Record]) -> Found:
    """Returns the progress of the search."""
    shared, results = search_of(config), searching.results_by_group(records)
    if config.strategy == "optuna":
        seeds, sampler, count = _tuning_seeds(config), config.sampler, config.trials
        return searching.ask(shared, config.seed, sampler, count, seeds, results)
    first = candidates(config, shared.space)
    if config.strategy == "halving":
        return searching.halve(shared, first, config.eta, config.rungs, results)
    return searching.try_all(shared, first, results)


def plan(config: Sweep, records: Sequence[Record]) -> list[Group]:
    """Returns the search so far, then the best configurations on fresh seeds."""
    found = find(config, records)
    first = config.seed + config.tuning_seeds
    fresh = tuple(range(first, first + config.seeds))
    best = [c._replace(seeds=fresh) for c in (found.ranking or [])[: config.best]]
    shared = search_of(config)
    return found.groups + searching.waves(shared, "best", best, config.steps, split="test")


def adapt(config: Sweep) -> Sweep:
    """Returns the config with R set to the trials that fit this machine.

    A CPU trains one trial at a time on each core, so a trial's memory does not matter. On other
    devices the compiler reports the needs of the largest network of the space.
    """
    if config.batch != "auto":
        return config
    asked = config.tuning_seeds * _count(config)
    if config.strategy == "optuna":
        asked = config.tuning_seeds * math.ceil(config.trials / ASKINGS)
    asked, device = max(asked, config.best * config.seeds), jax.local_devices()[0]
    if device.platform == "cpu":
        room = ON_A_CPU * jax.device_count()
    else:
        room = jax.device_count() * int(SHARE * _memory(device) // _bytes_a_trial(config))
    need(room >= 1, "batch", config.batch, "not even one trial fits the memory of this device")
    return dataclasses.replace(config, batch=str(min(asked, room)))


# Telling. -----------------------------------------------------------------------------------------


def every(config: Sweep, records: Sequence[Record]) -> list[Row]:
    """Returns every trial's hyperparameters and last result."""
    trials: dict[tuple[bool, int, int], Record] = {}
    for record in records:
        if record["kind"] == "result":
            reported = "test_n" in record
            trials[reported, record["configuration"], record["seed"]] = record
    return [_line(record, config) for _, record in sorted(trials.items(), key=lambda item: item[0])]


def _line(record: Record, config: Sweep) -> Row:
    split = "test" if "test_n" in record else "validation"
    return {
        "configuration": record["configuration"],
        "seed": record["seed"],
        **{name: record["values"][name] for name, _ in space_of(config).parameters},
        **{name: record[name] for name in ("status", "step", "solved_at", "loss", "metric")},
        "reason": record.get("reason", ""),
        "split": split,
        "split_loss": record[f"{split}_loss"],
        "split_accuracy": record[f"{split}_correct"] / record[f"{split}_n"],
    }


def columns(config: Sweep) -> tuple[list[str], list[str]]:
    """Returns the hyperparameters and metrics for TensorBoard."""
    return list(space_of(config).free), ["split_loss", "split_accuracy"]


def summarise(config: Sweep, records: Sequence[Record]) -> list[Row]:
    """Returns the best configurations and the spread of their fresh seeds."""
    found, results = find(config, records), searching.results_by_group(records)
    rows = []
    for rank, candidate in enumerate((found.ranking or [])[: config.best], start=1):
        of_it = [
            r for some in results.values() for r in some
            if r["configuration"] == candidate.configuration
        ]  # fmt: skip
        searched = searching.furthest(r for r in of_it if "validation_n" in r)
        rows.append(_best(rank, candidate, searched, [r for r in of_it if "test_n" in r], config))
    return rows


def _best(
    rank: int,
    candidate: Candidate,
    searched: Sequence[Record],
    reported: Sequence[Record],
    config: Sweep,
) -> Row:
    asked = [(r["test_correct"], r["test_n"]) for r in reported]
    losses = [math.inf if r["test_loss"] is None else r["test_loss"] for r in reported]
    score = float(np.mean([searching.score(r, config.metric) for r in searched]))
    return {
        "rank": rank,
        "configuration": candidate.configuration,
        **{name: candidate.values[name] for name in space_of(config).free},
        "validation": score,
        "accuracy": statistics.t_interval([c / n for c, n in asked], within=(0, 1)),
        "solved": statistics.wilson(sum(is_solved(*answers) for answers in asked), len(asked)),
        "median_loss": float(np.median(losses)),
        "worst_loss": float(np.max(losses)),
        "diverged": sum(r["status"] == "diverged" for r in reported),
    }


def parameters(space: Space) -> list[Parameter]:
    """Returns the space for reports; its points are the lines of `every`."""
    kinds = {search.Log: "log", search.Uniform: "uniform", search.Int: "int"}
    kinds[search.LogInt] = "log_int"
    return [
        Parameter(name, "choice", choices=domain.values)
        if isinstance(domain, search.Choice)
        else Parameter(name, kinds[type(domain)], domain.low, domain.high)
        for name, domain in space.parameters
        if name in space.free
    ]


def draw(config: Sweep, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws scores against parameters, the best score so far, and importances."""
    searched = [r for r in records if r["kind"] == "result" and "validation_n" in r]
    tried, told = responses(config, rows, searched), scored(config, searched)
    found = [tried._replace(touch=touch(*told)), progress(config, searched)]
    return found + importances(*told)


def responses(config: Sweep, rows: Sequence[Row], searched: Sequence[Record]) -> Picture:
    """Draws every trial's score against each parameter, a panel for each."""
    space = space_of(config)
    last = searching.furthest(searched)
    names, best = space.free or tuple(n for n, _ in space.parameters), _numbers(rows)
    columns = min(3, len(names))
    figure, panels = figures.canvas(math.ceil(len(names) / columns), columns, panel=(5, 4))
    ceiling = _ceiling(last, config.metric)
    for axes, name in zip(panels.flat, names, strict=False):
        domain = space[name]
        for chosen, colour, size, label in (
            (False, figures.COLOURS[0], 26, "tried"),
            (True, figures.COLOURS[1], 90, f"best {len(best)}"),
        ):
            some = [r for r in last if (r["configuration"] in best) == chosen]
            x = [_place(domain, r["values"][name]) for r in some]
            y = [min(searching.score(r, config.metric), ceiling) for r in some]
            axes.scatter(x, y, size, colour, marker="D" if chosen else "o", alpha=0.7, label=label)
        _dress(axes, name, domain, config.metric)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    figures.legend(figure, panels.flat[0])
    caption = (
        f"Validation {_words(config.metric)} of every trial, as far as it was trained, against each"
        " parameter; trials that diverged lie at the upper edge, diamonds are the best"
        " configurations."
    )
    return Picture("responses", caption, figure)


def progress(config: Sweep, searched: Sequence[Record]) -> Picture:
    """Draws the best score so far against the total updates of all trials."""
    figure, ((axes,),) = figures.canvas(1, 1, panel=(8, 4.6))
    x, y = searching.best_so_far(searched, config.metric)
    axes.step(x, y, where="post", color=figures.COLOURS[0])
    ylabel = f"validation {_words(config.metric)}, best"
    axes.set(xlabel="updates of all trials together", ylabel=ylabel)
    if config.metric == "loss":
        axes.set_yscale("log")
    caption = "The best trial so far, against the updates of all trials of the search together."
    return Picture("search", caption, figure)


def touch(weighed: Sequence[Parameter], trials: Sequence[Record], name: str) -> tuple[str, ...]:
    """Returns an interactive chart of every trial."""
    if not weighed or all(trial[name] is None for trial in trials):
        return ()
    about: Any = dict(space=weighed, records=trials, response=name, goal="min")
    return (
        interactive.script(),
        interactive.scatter("trials", **about, caption="Every trial; point at one to read it."),
        interactive.parallel(
            "settings", **about, divergent="worst", caption="Drag along an axis to keep a range."
        ),
    )


def importances(weighed: Sequence[Parameter], trials: Sequence[Record], name: str) -> list[Picture]:
    """Draws the importance of parameters and pairs, and the top two's effect."""
    forest = _forest(weighed, trials, name)
    if forest is None:
        return []
    effects = importance.effects(forest)
    height = 1.6 + 0.5 * min(len(effects), 8)
    figure, ((axes,),) = figures.canvas(1, 1, panel=(9, height))
    charts.importance_bars(axes, effects)
    caption = (
        f"Importance for {charts.words(name)}: functional ANOVA of a random forest on "
        f"{len(trials)} trials, with 95 % intervals. The forest explains {forest.explained:.0%} of "
        "the variance of new trials. Trials that diverged count as the worst of the others."
    )
    pictures = [Picture("importance", caption, figure)]
    if len(weighed) > 1:
        pictures.append(_surface(forest, effects, trials, name))
    return pictures


def _surface(
    forest: Forest, effects: Sequence[Effect], trials: Sequence[Record], name: str
) -> Picture:
    first, second, *_ = (e.parameters[0] for e in effects if len(e.parameters) == 1)
    over = importance.surface(forest, first, second)
    y, kept = statistics.settled(column(trials, name), goal="min", divergent="worst")
    at = points(over.parameters, [trials[trial] for trial in kept])
    figure, ((axes,),) = figures.canvas(1, 1, panel=(8, 5))
    charts.surface(figure, axes, over, at, y, charts.words(name))
    caption = (
        f"Mean {charts.words(name)} over the two parameters that matter most, by the forest: the "
        "mean over all others. Dots are the trials, in the same colours."
    )
    hint = "The two parameters that matter most; point at a place for its interval."
    part = interactive.heat_map("surface", over, name, hint)
    return Picture("two_that_matter", caption, figure, (part,))


def scored(
    config: Sweep, searched: Sequence[Record]
) -> tuple[list[Parameter], list[dict[str, Any]], str]:
    """Returns the free parameters, a record for each trial, and the score's name."""
    name = "log10_validation_loss" if config.metric == "loss" else "share_wrong"
    weighed, trials = parameters(space_of(config)), []
    for result in searching.furthest(searched):
        value = searching.score(result, config.metric)
        if config.metric == "loss" and math.isfinite(value):
            value = math.log10(max(value, 1e-12))
        settings = {parameter.name: result["values"][parameter.name] for parameter in weighed}
        known = {n: result[n] for n in ("configuration", "seed", "status", "step")}
        trials.append({**settings, **known, name: value if math.isfinite(value) else None})
    return weighed, trials, name


def _forest(weighed: Sequence[Parameter], trials: Sequence[Record], name: str) -> Forest | None:
    """Returns a forest on the trials; None for too few or too equal ones."""
    values = {trial[name] for trial in trials} - {None}
    if not weighed or len(trials) < ENOUGH or len(values) < 2:
        return None
    forest = importance.fit(weighed, trials, name, goal="min", divergent="worst")
    return forest if forest.explained > 0 else None


def _widths(space: Space, given: int) -> Sequence[int]:
    """Returns every possible width."""
    ends = _values(space, "hidden", given)
    ranges = "hidden" in space and isinstance(space["hidden"], search.Int)
    return range(ends[0], ends[1] + 1) if ranges else ends


@functools.cache
def _task(name: str, metric: str, lag: int) -> Task:
    """Returns the problem; a ranking by loss trains each trial to its last step."""
    task = TASKS[name](lag)
    return endless(task) if metric == "loss" else task


def _memory(device: Any) -> int:
    """Returns the free bytes of a device."""
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        raise ValueError(f"--batch=auto: {device} does not report its memory; need a number")
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def _bytes_a_trial(config: Sweep) -> float:
    """Returns the device bytes of a trial of the largest structure."""
    space = space_of(config)
    most = {
        name: max(_values(space, name, getattr(config, name)))
        for name in ("hidden", "depth", "batch_size", "lag")
    }
    shared = search_of(dataclasses.replace(config, batch="1"))
    batching, places = config.batching, 8
    return max(
        footprint(
            shared.task(most["lag"]),
            shared.network(shared.space.draw(0, 0) | {"cell": cell, **most}, wide=True),
            batch_size=most["batch_size"], optimizer=optimizer, batching=batching, places=places,
        ) / places
        for cell in _values(space, "cell", config.cell)
        for optimizer in _values(space, "optimizer", config.optimizer)
    )  # fmt: skip


def _numbers(rows: Sequence[Row]) -> set[int]:
    return {row["configuration"] for row in rows}


def _words(metric: str) -> str:
    return "loss" if metric == "loss" else "share of wrong sequences"


def _ceiling(searched: Sequence[Record], metric: str) -> float:
    """Returns the drawn position of infinite or very bad scores."""
    scores = [searching.score(r, metric) for r in searched]
    finite = [value for value in scores if math.isfinite(value)]
    return float(np.percentile(finite, 95)) * 1.1 if finite else 1.0


def _place(domain: search.Domain, value: Any) -> Any:
    """Returns a value's position on its axis: a choice by its index."""
    return domain.values.index(value) if isinstance(domain, search.Choice) else value


def _dress(axes: Any, name: str, domain: search.Domain, metric: str) -> None:
    axes.set(xlabel=name, ylabel=f"validation {_words(metric)}")
    if isinstance(domain, search.Choice):
        axes.set_xticks(range(len(domain.values)), map(str, domain.values))
    elif domain.logarithmic:
        axes.set_xscale("log")
    if metric == "loss":
        axes.set_yscale("log")


EXPERIMENT = Experiment(
    "sweep",
    str(__doc__),
    SCALES,
    plan,
    summarise,
    draw,
    adapt=adapt,
    every=every,
    columns=columns,
)

if __name__ == "__main__":
    sys.exit(runner.main(EXPERIMENT, sys.argv))
