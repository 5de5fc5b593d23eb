"""Successive halving finds hyperparameters as good as random search with a quarter of the updates.

Both search the learning rate, the forget bias and the clipping of an LSTM on the adding problem, by
validation loss. Successive halving starts 28 configurations and continues the best seventh after
1,714 of 12,000 updates. Random search spends `--budget` times as many updates. The claim reproduces
if the median best loss of successive halving is at most 1.1 times that of random search.

Command: scripts/run halving
Cost: --quick a minute, by default 60 minutes, both on two cores; --scale=paper is for a GPU
Expect: a ratio of the medians of 1.00 (reproduces), and 1.1 or less in 9 of 10 repeats
Method, and plans that failed: docs/experiments.md#halving
"""

import dataclasses
import itertools
import operator
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from experiments.common import networks, runner
from experiments.common.flags import (
    ETA,
    LENGTH,
    RUNGS,
    TRIALS,
    Config,
    naming,
    need,
    need_few,
    need_rungs,
    setting,
)
from experiments.common.plan import Claim, Experiment, Group, Picture, Record, Row
from lstm_jax import tasks
from lstm_jax.report import figures
from lstm_jax.report.claims import of_parts
from lstm_jax.report.statistics import Estimate
from lstm_jax.search import Candidate, Search, plans, strategies
from lstm_jax.search import space as search
from lstm_jax.tasks import base

SPACE = "learning_rate=log:1e-4:1 forget_bias=uniform:-2:6 clip=log:0.1:10"
HALVING, RANDOM = "successive halving", "random"
WITHIN = 1.1


def updates(config: "Halving") -> int:
    """Returns the updates of one repeat of successive halving without divergence."""
    plan = search.rungs(config.trials, config.steps, config.eta, config.rungs)
    before = [0, *(steps for _, steps in plan)]
    return sum(count * (steps - before[k]) for k, (count, steps) in enumerate(plan))


def random_trials(config: "Halving") -> int:
    """Returns the trials of one repeat of random search."""
    return config.budget * updates(config) // config.steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halving(Config):
    """How many configurations, how long, and how often."""

    seeds: int = setting(10, "repeats, each from its own seed")
    steps: int = setting(12_000, "updates of a trial that is trained to its end")
    space: str = setting(SPACE, "the searched space, as in sweep; numbers only")
    trials: int = setting(28, "configurations at the start of successive halving")
    eta: int = setting(7, "one in this many continues", ETA)
    rungs: int = setting(2, "rungs, the last at the end", RUNGS)
    budget: int = setting(4, "updates of random search, times those of halving", (1, 1000))
    lag: int = setting(100, "T, the length of the sequences", (2, LENGTH[1]))
    batch_size: int = setting(16, "sequences an update")
    batch: int = setting(64, "trials trained at once (R)", TRIALS)

    def __post_init__(self):
        super().__post_init__()
        need_rungs(self.trials, "steps", self.steps, self.eta, self.rungs)
        need_few(seeds=self.seeds, trials=self.trials)
        tried = self.seeds * random_trials(self)
        right = f"random search has {tried} trials, need at most {TRIALS[1]}"
        need(tried <= TRIALS[1], "budget", self.budget, right)
        with naming("space"):
            search.parse(self.space, {})


SCALES = {
    "quick": Halving(seeds=3, trials=14, steps=140, lag=10, hidden=8),
    "small": Halving(),
    "paper": Halving(trials=84, steps=36_000, hidden=128, batch=512),
}


def contenders(config: Halving) -> dict[str, list[Candidate]]:
    """Returns the numbered configurations of both strategies in all repeats.

    In a repeat both start with the same ones and differ only in which continue. The learning rate
    falls until the end: with a constant one, the last digits of the loss are noise.
    """
    space = search.parse(config.space, {})
    each = {HALVING: config.trials, RANDOM: random_trials(config)}
    most, found, numbers = max(each.values()), {}, itertools.count()
    for strategy, count in each.items():
        found[strategy] = [
            Candidate(
                next(numbers),
                {"decay": config.steps, **space.draw(config.seed, repeat * most + k)},
                (seed,),
                repeat,
            )
            for repeat, seed in enumerate(range(config.seed, config.seed + config.seeds))
            for k in range(count)
        ]
    return found


def plan(config: Halving, records: Sequence[Record]) -> list[Group]:
    """Returns random search and the rungs of halving; repeats share groups."""
    task = base.never_solved(tasks.Adding(length=config.lag))
    network = networks.network("lstm", task, config.hidden, config.engine)
    given = {"hidden": config.hidden, "batch_size": config.batch_size, "optimizer": "adam"}
    shared = Search(
        search.parse(config.space, {}), given, lambda structure: task,
        lambda structure, task: network, config.steps, config.batch,
    )  # fmt: skip
    both, results = contenders(config), plans.results_by_group(records)
    whole = strategies.try_all(shared, both[RANDOM], results)
    halved = strategies.halve(shared, both[HALVING], config.eta, config.rungs, results)
    return whole.groups + halved.groups


def curves(
    config: Halving, records: Sequence[Record]
) -> dict[str, list[tuple[list[int], list[float]]]]:
    """Returns updates and the best validation loss so far, by strategy and repeat."""
    results = [r for r in records if r["kind"] == "result"]
    numbers = {s: {c.configuration for c in some} for s, some in contenders(config).items()}
    return {
        strategy: [
            plans.best_so_far(
                [r for r in results if r["configuration"] in own and r["bracket"] == repeat], "loss"
            )
            for repeat in range(config.seeds)
        ]
        for strategy, own in numbers.items()
    }


def summarise(config: Halving, records: Sequence[Record]) -> list[Row]:
    """Returns the results of each strategy, and their ratio to random search.

    `of_random` compares the medians; `within` counts the repeats in which a strategy's best is at
    most `WITHIN` times that of random search in the same repeat.
    """
    found = curves(config, records)
    best = {s: [losses[-1] for _, losses in repeats] for s, repeats in found.items()}
    bars = [WITHIN * loss for loss in best[RANDOM]]
    return [
        {
            "strategy": strategy,
            "repeats": len(repeats),
            "updates": float(np.mean([x[-1] for x, _ in repeats])),
            "median_loss": float(np.median(best[strategy])),
            "best_loss": min(best[strategy]),
            "worst_loss": max(best[strategy]),
            "of_random": float(np.median(best[strategy]) / np.median(best[RANDOM])),
            "within": sum(map(operator.le, best[strategy], bars)),
        }
        for strategy, repeats in found.items()
    ]


def claims(config: Halving, rows: Sequence[Row]) -> list[Claim]:
    """Returns the claim that halving's loss is within `WITHIN` of random search's."""
    halved = next(row for row in rows if row["strategy"] == HALVING)
    said = f"Successive halving finds a loss at most {WITHIN:g} times that of random search with "
    said += f"{config.budget} times the updates"
    ours = f"{halved['of_random']:.2f} times, medians of {config.seeds} repeats (at most "
    ours += f"{WITHIN:g} times in {halved['within']} of them)"
    return [Claim(said, ours, "-", of_parts([halved["of_random"] <= WITHIN]))]


def draw(config: Halving, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws the best loss so far against the updates of both strategies."""
    figure, ((axes,),) = figures.canvas(1, 1, panel=(8, 5))
    styles = figures.styles([HALVING, RANDOM])
    for strategy, repeats in curves(config, records).items():
        x = sorted({at for done, _ in repeats for at in done})
        x = [at for at in x if all(done[0] <= at for done, _ in repeats)]
        best = [[y[bisect_right(done, at) - 1] for done, y in repeats] for at in x]
        quartiles = [Estimate(*np.percentile(row, (50, 25, 75))) for row in best]
        figures.band(axes, x, quartiles, styles[strategy], strategy)
    axes.set(xscale="log", yscale="log", xlabel="updates of all trials of a repeat together")
    axes.set(ylabel="validation loss, best so far")
    figures.legend(figure, axes)
    caption = f"The best validation loss so far, median of {config.seeds} repeats and quartiles."
    return [Picture("halving", caption, figure)]


EXPERIMENT = Experiment("halving", str(__doc__), SCALES, plan, summarise, draw, claims=claims)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
