"""Recurrent PPO remembers a cue over many time steps; a policy without memory stays at its ceiling.

Policies without memory and with a tanh RNN, a GRU, an LSTM, an LSTM with chrono biases or a minGRU
play environments that hide what they showed first. All have equal time steps; two tuning seeds
choose a learning rate for each policy and problem, other seeds are reported. A seed solves a
problem if its greedy policy scores 95 % of the optimum on fresh episodes. Rollouts, updates, seeds
and learning rates are one compiled program.

Command: scripts/run memory_rl
Cost: --quick a minute; by default about 35 minutes (2,000 s of processor time); --scale=paper
  is for a GPU
Expect: seeds of 8 that solve lengths of 5, 20 and 80
                 T-maze   memory chain
  GRU            8 8 8    8 8 0
  LSTM, chrono   8 4 7    8 8 7
  LSTM, bias 1   8 6 2    8 8 0
  no memory      0 0 0    0 0 0
Method: docs/experiments.md#memory_rl
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lstm_jax as lj
from experiments.common import ppo, runner, tuning
from experiments.common.environments import ENVIRONMENTS, Environment, Params
from experiments.common.flags import Config, need, setting
from experiments.common.plan import Claim, Computed, Experiment, Picture, Record, Row
from experiments.common.ppo import PPO, Policy
from lstm_jax import cells
from lstm_jax.report import figures, ledger, statistics, traces
from lstm_jax.report.claims import above, exceeds, of_parts
from lstm_jax.report.figures import Style
from lstm_jax.report.statistics import SOLVED
from lstm_jax.report.traces import Panel, heat_maps

CELLS: Mapping[str, Callable[[int], cells.Cell] | None] = {
    "feedforward": None,
    "rnn": cells.RNN,
    "gru": cells.GRU,
    "lstm": cells.LSTM,
    "lstm_chrono": cells.LSTM,
    "min_gru": cells.MinGRU,
}
LABELS = {
    "feedforward": "no memory",
    "rnn": "tanh RNN",
    "gru": "GRU",
    "lstm": "LSTM (bias 1)",
    "lstm_chrono": "LSTM (chrono)",
    "min_gru": "minGRU",
}
DEFAULT, WITHOUT_LENGTH = ("t_maze", "memory_chain"), ("masked_cartpole",)
SHOWN = "lstm"  # the policy of the figure of one episode
POINTS = 20  # of a curve
CHRONO = "long lags of supervised tasks (Tallec & Ollivier 2018)"
BAKKER = "an LSTM solves corridors of 70 steps (Bakker 2002)"


class Problem(NamedTuple):
    """An environment at one length (CartPole has none)."""

    name: str
    length: int | None

    @property
    def environment(self) -> Environment:
        """The environment itself."""
        return ENVIRONMENTS[self.name]

    @property
    def at(self) -> Params:
        """Its traced parameters."""
        return Params(jnp.int32(self.length or 1))

    @property
    def title(self) -> str:
        """The words of a figure."""
        return self.name if self.length is None else f"{self.name}, length {self.length}"

    def group(self, policy: str) -> str:
        """Returns the name of the trials of one policy."""
        return f"{self.title.replace(', length ', '_')}-{policy}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryRL(Config):
    """Which policies play which environments, and for how long."""

    seeds: int = setting(8, "trials reported for each setting, each from its own seed")
    steps: int = setting(100, "updates of a trial, one rollout each")
    environments: tuple[str, ...] = setting(DEFAULT, "environments to play", choices=ENVIRONMENTS)
    lengths: tuple[int, ...] = setting((5, 20, 80), "steps to remember", (1, 10_000))
    policies: tuple[str, ...] = setting(tuple(CELLS), "policies to train", choices=CELLS)
    learning_rates: tuple[float, ...] = setting((3e-4, 1e-3, 3e-3, 1e-2), "the grid to choose from")
    tuning_seeds: int = setting(2, "seeds to choose on, before those that are reported")
    horizon: int = setting(128, "time steps of a rollout", (1, 100_000))
    batch_size: int = setting(32, "environments played at once")
    episodes: int = setting(256, "fresh episodes of an evaluation", (1, 1_000_000))

    def __post_init__(self):
        super().__post_init__()
        need(self.batch_size % 2 == 0, "batch_size", self.batch_size, "need an even number")

    @property
    def ppo(self) -> PPO:
        """The settings of a trial."""
        return PPO(updates=self.steps, horizon=self.horizon, environments=self.batch_size)

    @property
    def problems(self) -> list[Problem]:
        """Every environment at every length."""
        with_length = [name for name in self.environments if name not in WITHOUT_LENGTH]
        alone = [Problem(name, None) for name in self.environments if name in WITHOUT_LENGTH]
        return [*(Problem(*at) for at in product(with_length, self.lengths)), *alone]

    def policy(self, name: str) -> Policy:
        """Returns a policy; chrono biases are a start, so both LSTMs share a program."""
        make = CELLS[name]
        return Policy(make and make(self.hidden), self.hidden, self.engine)


SCALES = {
    "quick": MemoryRL(
        environments=("memory_chain",), lengths=(5,), policies=("feedforward", "gru"), seeds=4,
        tuning_seeds=4, learning_rates=(3e-3,), steps=25, horizon=32, batch_size=16, hidden=16,
    ),
    "small": MemoryRL(),
    "paper": MemoryRL(
        environments=tuple(ENVIRONMENTS), lengths=(10, 30, 100, 300), seeds=20, steps=1000,
        horizon=512, batch_size=64, hidden=128,
    ),
}  # fmt: skip


def plan(config: MemoryRL, records: Sequence[Record]) -> list[Computed]:
    """Returns one group for each problem and policy; a killed one is computed again."""
    return [
        Computed(problem.group(name), functools.partial(compute, config, problem, name))
        for problem, name in product(config.problems, config.policies)
    ]


def compute(config: MemoryRL, problem: Problem, name: str) -> tuple[list[Record], Any]:
    """Returns the results of tuning, then of the reported seeds, and the parameters of the latter.

    Tuning and report have fresh episodes of their own seeds.
    """
    rates, tuned = config.learning_rates, []
    best = rates[0]
    if len(rates) > 1:
        rate, seed = zip(*product(rates, config.tuned), strict=True)
        tuned, _ = results(config, problem, name, seed, rate)
        best = tuning.chosen(rates, [judged(config, r) for r in tuned]) or best
    found, params = results(config, problem, name, config.reported, [best] * config.seeds)
    if name == SHOWN:
        found[0]["shown"] = episode(config, problem, jax.tree.map(lambda a: a[0], params))
    phases = {"tuning": tuned, "reported": found}
    return [{**r, "phase": phase} for phase, rows in phases.items() for r in rows], params


def judged(config: MemoryRL, result: Record) -> Record:
    """Returns a result as `tuning.chosen` reads it."""
    n = config.episodes
    return {"status": "trained", "validation_correct": result["score"] * n, "validation_n": n}


def results(
    config: MemoryRL, problem: Problem, name: str, seeds: Sequence[int], rates: Sequence[float]
) -> tuple[list[dict[str, Any]], Any]:
    """Returns a result and the trained parameters of every trial, all of one program."""
    policy, environment = config.policy(name), problem.environment
    many = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(many)
    begin = functools.partial(policy.init, environment=environment, **biases(problem, name))
    params, learning_rates = jax.vmap(begin)(keys[:, 0]), jnp.array(rates, jnp.float32)
    played = environment, policy
    trained, sums = ppo.train(*played, config.ppo, problem.at, params, learning_rates, keys[:, 1])
    gain, score = ppo.evaluate(*played, config.episodes, problem.at, trained, keys[:, 2])
    columns = zip(seeds, rates, gain.tolist(), score.tolist(), curves(config, sums), strict=True)
    names = "seed", "learning_rate", "return", "score", "curve"
    return [dict(zip(names, row, strict=True)) for row in columns], trained


def biases(problem: Problem, name: str) -> dict[str, Any]:
    """Returns chrono biases for lags up to 3/2 of the length, as in `long_memory`."""
    longest = max(2.0, 1.5 * (problem.length or 1))
    return {"b": lj.initializers.chrono(longest)} if name == "lstm_chrono" else {}


def curves(config: MemoryRL, sums: jax.Array) -> list[list[list[float | None]]]:
    """Returns [time steps, mean return] of each part of each trial, None without an episode."""
    parts = np.array_split(np.asarray(sums, np.float64), min(POINTS, config.steps), axis=1)
    ends = np.cumsum([part.shape[1] for part in parts]) * config.horizon * config.batch_size
    totals = [part.sum(1) for part in parts]  # [R, 3] each: episodes, return, score
    return [
        [
            [int(end), float(total[n, 1] / total[n, 0]) if total[n, 0] else None]
            for end, total in zip(ends, totals, strict=True)
        ]
        for n in range(len(sums))
    ]


def episode(config: MemoryRL, problem: Problem, params: Any) -> Record:
    """Returns observations, actions and gates of an LSTM policy's first episode, T at most."""
    policy, environment = config.policy(SHOWN), problem.environment
    key = jax.random.key(config.seed)
    playing = ppo.start(environment, policy, 1, problem.at, key)
    _, played = ppo.rollout(environment, policy, config.horizon, problem.at, params, playing)
    ends = np.flatnonzero(played.done[:, 0])
    length = int(ends[0]) + 1 if len(ends) else config.horizon
    x = jnp.tanh(ppo.apply(params["encoder"], played.observation[:length]))
    traced = lj.trace(cells.LSTM(config.hidden), params["cell"], x)
    order = np.argsort(-np.asarray(traced.gates.f[:, 0].mean(0)))  # longest memory first
    shown = {**traced.gates._asdict(), "c": traced.states.c}
    return {
        "input": traces.rounded(played.observation[:length, 0].T),
        "action": played.action[:length, 0].tolist(),
        **{key: traces.rounded(value[:, 0].T[order]) for key, value in shown.items()},
    }


def reported(records: Sequence[Record], problem: Problem, name: str) -> list[Record]:
    """Returns the results of the reported seeds of a policy."""
    found = ledger.results(records, problem.group(name))
    return [r for r in found if r["phase"] == "reported"]


def summarise(config: MemoryRL, records: Sequence[Record]) -> list[Row]:
    """Returns a row for each problem and policy, over the reported seeds."""
    return [
        row(problem, name, reported(records, problem, name))
        for problem, name in product(config.problems, config.policies)
    ]


def row(problem: Problem, name: str, found: Sequence[Record]) -> Row:
    """Returns one line of the table."""
    score = [r["score"] for r in found]
    return {
        "environment": problem.name,
        "length": problem.length,
        "policy": LABELS[name],
        "learning_rate": found[0]["learning_rate"],
        "solved": statistics.wilson(sum(s >= SOLVED for s in score), len(score)),
        "score": statistics.t_interval(score, within=(0, 1)),
        "return": statistics.t_interval([r["return"] for r in found]),
        "ceiling_without_memory": problem.environment.memoryless,
    }


def numbers(config: MemoryRL, rows: Sequence[Row]) -> list[Row]:
    """Returns for each policy how many seeds solve each environment and length."""
    found: dict[str, dict[str, Any]] = {}
    for r in rows:
        line = found.setdefault(r["policy"], {"seeds that solve": r["policy"]})
        line[f"{r['environment']} {r['length']}"] = str(r["solved"]).split()[0]
    return list(found.values())


def claims(config: MemoryRL, rows: Sequence[Row]) -> list[Claim]:
    """Returns claims on the ceiling, on the LSTM at the longest length, and on chrono biases."""
    found, longest = [], max(config.lengths)
    for name in config.environments:
        mine = [r for r in rows if r["environment"] == name]
        alone = [r for r in mine if r["policy"] == LABELS["feedforward"]]
        ceiling = ENVIRONMENTS[name].memoryless
        if alone and ceiling is not None:
            said = f"{name}: without memory no policy scores above {ceiling:g}, its known ceiling"
            ours = "; ".join(f"{r['score']} (length {r['length']})" for r in alone)
            verdict = of_parts([r["score"].low <= ceiling for r in alone])
            found.append(Claim(said, ours, "-", verdict))
        at = {r["policy"]: r for r in mine if r["length"] == longest}
        lstm, chrono = at.get(LABELS["lstm"]), at.get(LABELS["lstm_chrono"])
        if lstm:
            said = f"{name}: an LSTM policy reaches the optimum at length {longest}"
            share = lstm["solved"]
            verdict = above(share, 0.5)
            published = BAKKER if name == "t_maze" else "-"
            found.append(Claim(said, f"{share} seeds", published, verdict))
        if lstm and chrono:
            said = f"{name}: chrono biases help an LSTM policy at length {longest}"
            ours = f"score {chrono['score']} against {lstm['score']}"
            found.append(Claim(said, ours, CHRONO, exceeds(chrono["score"], lstm["score"])))
    return found


def draw(config: MemoryRL, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws success against length, return against time steps, and one episode."""
    styles = figures.styles(list(LABELS.values()))  # the same in every run
    pictures = [against_length(config, rows, styles), learning(config, records, styles)]
    if SHOWN in config.policies:
        problem = config.problems[0]
        pictures.append(one_episode(problem, reported(records, problem, SHOWN)[0]["shown"]))
    return pictures


def against_length(config: MemoryRL, rows: Sequence[Row], styles: Mapping[str, Style]) -> Picture:
    """Draws the mean score of every policy over the lengths, a panel for each environment."""
    figure, panels = figures.grid(len(config.environments), 3, (5.4, 4.4))
    for axes, name in zip(panels, config.environments, strict=True):
        for label in dict.fromkeys(r["policy"] for r in rows):
            mine = [r for r in rows if (r["environment"], r["policy"]) == (name, label)]
            x = [r["length"] or 1 for r in mine]
            figures.error_bars(axes, x, [r["score"] for r in mine], styles[label], label)
        ceiling = ENVIRONMENTS[name].memoryless
        if ceiling is not None:
            figures.level(axes, ceiling, "without memory")
        axes.set(title=name, xlabel="steps to remember", ylim=(-0.02, 1.02))
        figures.log_sizes(axes, config.lengths)
    panels[0].set_ylabel("score, 1 is the optimum")
    figures.legend(figure, panels[0], columns=2 * min(3, len(panels)))
    caption = (
        f"Mean score of greedy policies on {config.episodes} fresh episodes after "
        f"{config.steps * config.horizon * config.batch_size:,} time steps, over {config.seeds} "
        "seeds, bars: Student's 95 % interval. Dashed: the ceiling of a policy without memory."
    )
    return Picture("success", caption, figure)


def learning(config: MemoryRL, records: Sequence[Record], styles: Mapping[str, Style]) -> Picture:
    """Draws mean training returns against time steps, a panel for each problem."""
    figure, panels = figures.grid(len(config.problems), 3, (5, 3.8))
    for axes, problem in zip(panels, config.problems, strict=True):
        for name in config.policies:
            points = np.array(
                [r["curve"] for r in reported(records, problem, name)], dtype=np.float64
            )  # [R, points, 2]; null becomes nan
            y = [statistics.interval(column.tolist()) for column in points[:, :, 1].T]
            figures.band(axes, points[0, :, 0].tolist(), y, styles[LABELS[name]], LABELS[name])
        axes.set(title=problem.title, xlabel="time steps", ylabel="return")
    figures.legend(figure, panels[0], columns=2 * min(3, len(panels)))
    caption = "Mean return of sampled training episodes over seeds, with Student's 95 % interval."
    return Picture("learning", caption, figure)


def one_episode(problem: Problem, shown: Record) -> Picture:
    """Draws the observations and actions of an episode, with the gates under them."""
    actions = range(problem.environment.num_actions)
    chosen = [[float(action == a) for action in shown["action"]] for a in actions]
    scaled = (0.5 + 0.5 * np.array(shown["input"])).tolist()  # the range of the gates
    panels = [
        Panel("observed", scaled, 0, problem.environment.features),
        Panel("action", chosen, 0, [str(a) for a in actions]),
        *(Panel(f"gate {name}", shown[name]) for name in "ifo"),
        Panel("cell c", shown["c"], -1),
    ]
    caption = f"{problem.title}: one episode of one trained LSTM policy. One row a unit, the "
    caption += "longest memory on top; cell values beyond 1 saturate."
    return Picture("episode", caption, heat_maps(panels))


EXPERIMENT = Experiment(
    "memory_rl", str(__doc__), SCALES, plan, summarise, draw, claims=claims, numbers=numbers
)

if __name__ == "__main__":
    runner.script(EXPERIMENT)
