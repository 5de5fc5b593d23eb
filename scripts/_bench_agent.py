"""Recurrent PPO with a linen network: with a scanned GRU, and with `lj.linen.Recurrent` instead.

The network is that of PureJaxRL's recurrent PPO, written from its description (Lu et al. 2022): a
dense encoder, a GRU with resets, and two dense heads. `experiments.common.ppo` has the rollouts and
updates, all seeds in one program. Both networks start from equal parameters.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

import lstm_jax as lj
from experiments.common import ppo
from experiments.common.environments import ENVIRONMENTS, Params
from lstm_jax.report.statistics import Estimate, interval
from scripts._bench_flax import ScannedRNN
from scripts._rivals import ignoring, seconds

SEEDS, HIDDEN, RATE = 8, 64, 3e-3
SETTINGS = ppo.PPO(updates=50, horizon=128, environments=32)
PROBLEMS = (("t_maze", 5), ("memory_chain", 10))
EPISODES = 256


class ActorCritic(linen.Module):
    """Network of a policy with memory, over [T, B, ...]."""

    recurrent: linen.Module  # (carry, (x, resets)) -> (carry, h)
    actions: int  # number of actions
    hidden: int  # units of each layer

    @linen.compact
    def __call__(self, carry: Any, inputs: tuple[jax.Array, jax.Array]) -> Any:
        """Returns the next carry, the logits [T, B, A] and the values [T, B]."""
        x, resets = inputs
        x = linen.relu(self.dense(self.hidden, 2**0.5)(x))
        carry, h = self.recurrent(carry, (x, resets))  # pyright: ignore[reportCallIssue]
        logits = self.dense(self.actions, 0.01)(linen.relu(self.dense(self.hidden, 2.0)(h)))
        value = self.dense(1, 1.0)(linen.relu(self.dense(self.hidden, 2.0)(h)))
        return carry, logits, value[..., 0]

    def dense(self, width: int, scale: float) -> linen.Dense:
        """Returns an orthogonal layer."""
        return linen.Dense(width, kernel_init=linen.initializers.orthogonal(scale))


@dataclasses.dataclass(frozen=True)
class LinenPolicy:
    """A linen network as the policy of `experiments.common.ppo`."""

    network: ActorCritic  # equal networks share a program
    ours: bool  # whether its recurrent layer is ours

    def init(self, key: jax.Array, observation_size: int) -> Any:
        """Returns the initial parameters, equal for both recurrent layers."""
        scanned = policy(False, self.network.actions)
        inputs = jnp.zeros((1, 1, observation_size)), jnp.zeros((1, 1), bool)
        params: dict[str, Any] = dict(scanned.network.init(key, scanned.begin(1), inputs)["params"])
        if not self.ours:
            return params
        cell = lj.cells.GRU(HIDDEN)
        layer = lj.linen.to_tree(lj.interop.from_linen(cell, params["recurrent"]["GRUCell_0"]))
        return params | {"recurrent": layer}

    def begin(self, rows: int) -> Any:
        """Returns the state at the start of an episode."""
        if self.ours:
            return lj.initial_state(lj.cells.GRU(HIDDEN), rows)
        return jnp.zeros((rows, HIDDEN))

    def act(self, params: Any, state: Any, observation: Any, reset: Any) -> Any:
        """Returns the next state, the logits [B, A] and the value [B] of one time step."""
        inputs = observation[None], reset[None]
        found: Any = self.network.apply({"params": params}, state, inputs)
        state, logits, value = found
        return state, logits[0], value[0]

    def over_time(self, params: Any, state: Any, observation: Any, reset: Any) -> Any:
        """Returns the logits [T, B, A] and the values [T, B] of a rollout."""
        found: Any = self.network.apply({"params": params}, state, (observation, reset))
        return found[1:]


def policy(ours: bool, actions: int) -> LinenPolicy:
    """Returns the network with our recurrent layer or the scanned one."""
    layer = lj.linen.Recurrent(lj.cells.GRU(HIDDEN)) if ours else ScannedRNN()
    return LinenPolicy(ActorCritic(layer, actions, HIDDEN), ours)


def agent(repeats: int) -> list[dict[str, Any]]:
    """Times training with both layers; scores over eight seeds."""
    rows = []
    for name, length in PROBLEMS:
        runs = {kind: functools.partial(run, name, length, kind == "ours") for kind in KINDS}
        scores = {kind: call() for kind, call in runs.items()}  # compiles
        calls = {kind: ignoring(call) for kind, call in runs.items()}
        rows.append(_row(name, length, scores, seconds(calls, repeats)))
        print(_line(rows[-1]), flush=True)
    return rows


KINDS = ("ScannedRNN", "ours")


def run(name: str, length: int, ours: bool) -> list[float]:
    """Returns the scores of eight trained policies on fresh episodes."""
    environment, at = ENVIRONMENTS[name], Params(jnp.int32(length))
    one = policy(ours, environment.num_actions)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(
        jax.random.split(jax.random.key(0), SEEDS)
    )
    begin = functools.partial(one.init, observation_size=environment.observation_size)
    params = jax.vmap(begin)(keys[:, 0])
    rates = jnp.full(SEEDS, RATE)
    trained, _ = ppo.train(environment, one, SETTINGS, at, params, rates, keys[:, 1])  # pyright: ignore[reportArgumentType]
    return ppo.evaluate(environment, one, EPISODES, at, trained, keys[:, 2])[1].tolist()  # pyright: ignore[reportArgumentType]


def _row(name: str, length: int, scores: Any, times: dict[str, Any]) -> dict[str, Any]:
    steps = SEEDS * SETTINGS.updates * SETTINGS.horizon * SETTINGS.environments
    return {
        "kind": "agent",
        "problem": f"{name} {length}",
        "score": {kind: list(interval(each, (0.0, 1.0))) for kind, each in scores.items()},
        "steps_a_second": {kind: steps / s for kind, s in times["median_s"].items()},
        **times,
    }


def _line(row: dict[str, Any]) -> str:
    each = (
        f"{kind} score {Estimate(*score)}, {row['steps_a_second'][kind]:,.0f} steps a second"
        for kind, score in row["score"].items()
    )
    return f"{row['problem']}: " + "; ".join(each)


class Update:
    """A training that goes on: every call is one more rollout and update of the same program."""

    def __init__(self, ours: bool):
        environment, at = ENVIRONMENTS["t_maze"], Params(jnp.int32(20))
        settings = dataclasses.replace(SETTINGS, environments=64)
        one: Any = policy(ours, environment.num_actions)
        key = jax.random.key(0)
        params = one.init(key, environment.observation_size)
        playing = ppo.start(environment, one, settings.environments, at, key)
        self.now = ppo.Learning(params, settings.optimizer.init(params), playing)
        self.steps = settings.horizon * settings.environments
        self.update = jax.jit(functools.partial(ppo.update, environment, one, settings, at))
        self(0)

    def __call__(self, n: int) -> list[float]:
        """Returns the mean reward of the rollout."""
        self.now, sums = self.update(jnp.float32(RATE), self.now)
        return [float(sums[1]) / self.steps]


def updates() -> dict[str, Update]:
    """Returns a call for each of both layers."""
    return {"lstm_jax": Update(True), "linen.scan": Update(False)}
