"""Validation during training: the best parameters, patience, and plateaus."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.tasks.base import Task
from lstm_jax.training.divergence import RUNNING, STOPPED
from lstm_jax.training.evaluation import Asked, measure
from lstm_jax.training.step import Best, Settings, State, Validated, current_params
from lstm_jax.training.trials import Trials
from lstm_jax.types import Array, Model


def validate(
    task: Task,
    model: Model,
    settings: Settings,
    asked: Asked,
    trial: Trials,
    state: State,
    data: Any,
) -> State:
    """Returns a trial after validation; unchanged if it had no update since the last one."""
    rules = settings.validated
    assert rules is not None and isinstance(state.best, Best)

    def validated():
        params = current_params(state)
        sums = measure(task, model, asked, params, trial, data)
        return _judged(rules, state, params, sums.loss / sums.weight)

    return lax.cond(state.step > state.best.checked, validated, lambda: state)


def _judged(rules: Validated, state: State, params: Any, loss: Array) -> State:
    """Returns a trial with its best parameters, stopped or at a lower rate after waiting."""
    best: Any = state.best
    better = loss < best.loss  # False for nan
    waited = jnp.where(better, 0, best.waited + 1)
    stalled = jnp.where(better, 0, best.stalled + 1)
    reduced = stalled >= (rules.plateau or jnp.inf)
    kept = Best(
        params=jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best.params),
        loss=jnp.where(better, loss, best.loss),
        step=jnp.where(better, state.step, best.step),
        checked=state.step,
        waited=waited,
        stalled=jnp.where(reduced, 0, stalled),
        rate=jnp.where(reduced, best.rate * rules.factor, best.rate),
    )
    stops = (state.status == RUNNING) & (waited >= (rules.patience or jnp.inf))
    status = jnp.where(stops, jnp.int32(STOPPED), state.status)
    return state._replace(best=kept, status=status)
