"""Training goes on from any state as if it had never stopped."""

from typing import Any

import jax
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax import fit, make_trials
from lstm_jax.training.trials import initial, keys
from tests.training.learners import LINE, NETWORK, SLOPE, TASK, assert_same, pick

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_survivors_go_on_as_if_they_had_never_stopped():
    """Bit for bit: a few trials of a batch, gathered into a smaller one, with all they had."""
    trials = make_trials(
        seed=[0, 1, 2, 3, 4], learning_rate=[1e-2, 3e-2, 1e-3, 1e-2, 1e-1],
        weight_decay=[0, 0, 0, 0.1, 0], dropout=[0, 0.5, 0, 0.2, 0], clip=1.0,
    )  # fmt: skip
    straight = fit(TASK, NETWORK, trials, 33, progress=False)
    rung = fit(TASK, NETWORK, trials, 10, chunk=7, progress=False)
    rows = [3, 1]
    on = fit(
        TASK, NETWORK, pick(trials, rows), 33, begin_from=pick(rung.state, rows), progress=False
    )
    assert_same(on, pick(straight, rows))
    assert on.step.tolist() == [33, 33]


def test_a_trial_that_had_stopped_stays_as_it_is():
    trials = make_trials(seed=[0, 1], learning_rate=[0.1, 1e10])
    settings: Any = dict(optimizer="sgd", progress=False)
    first = fit(LINE, SLOPE, trials, 60, **settings)
    on = fit(LINE, SLOPE, trials, 80, begin_from=first.state, **settings)
    assert on.status.tolist() == ["finished", "diverged"]
    assert_same(pick(on.state, 1), pick(first.state, 1))
    assert_same(on, fit(LINE, SLOPE, trials, 80, **settings))
    gone = pick(first.state, [1])
    assert_same(fit(LINE, SLOPE, pick(trials, [1]), 80, begin_from=gone, **settings).state, gone)


def test_a_model_s_own_parameters_made_fresh_are_its_own_beginning():
    trials = make_trials(seed=[0, 1])
    params = fit(LINE, SLOPE, trials, 1, progress=False).params
    each = [pick(trials, i) for i in range(2)]
    drawn = [SLOPE.init(keys(trial).init, **initial(trial)) for trial in each]
    own = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
    start = lj.training.fresh(LINE, SLOPE, own, trials)
    assert_same(fit(LINE, SLOPE, trials, 1, begin_from=start, progress=False).params, params)
    shapes = lj.training.state_shapes(LINE, SLOPE, trials)
    assert_same(*(jax.tree.map(lambda x: np.array(x.shape), t) for t in (shapes, start)))


def test_a_beginning_of_other_trials_is_refused():
    state = fit(LINE, SLOPE, make_trials(seed=[0, 1, 2]), 1, progress=False).state
    with pytest.raises(ValueError, match=r"begin_from\.\S+ must be .* for these trials"):
        fit(LINE, SLOPE, make_trials(seed=[0, 1]), 3, begin_from=state, progress=False)
    with pytest.raises(ValueError, match=r"begin_from\.optimizer\S+ must be None for these trials"):
        fit(
            LINE, SLOPE, make_trials(seed=[0, 1, 2]), 3, optimizer="sgd", begin_from=state,
            progress=False,
        )  # fmt: skip
