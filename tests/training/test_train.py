"""Learning: the law of one trial, and that its neighbours make no difference to it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax import fit, make_trials
from lstm_jax.tasks import Recall
from lstm_jax.training import loop, lower, parallel
from lstm_jax.training.loop import Job
from lstm_jax.training.step import WINDOW, Settings
from lstm_jax.training.trials import initial, keys
from scripts import _hlo as hlo
from tests.products import slow
from tests.toys import Line, Slope
from tests.training.learners import LINE, NETWORK, SLOPE, TASK, assert_same, pick

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_sgd_on_a_line_is_the_recursion_written_out_in_numpy():
    """Also the law of the data: drawn from (seed, step) alone; and of the running means."""
    trials = make_trials(seed=[7, 8], learning_rate=[0.05, 0.1], clip=[np.inf, 2])
    steps, batch_size = 150, 10
    result = fit(LINE, SLOPE, trials, steps, batch_size=batch_size, optimizer="sgd", progress=False)
    for i in range(2):
        trial = pick(trials, i)
        params = jax.tree.map(np.float64, SLOPE.init(keys(trial).init, **initial(trial)))
        w, b, mean = params["w"][0, 0], params["b"][0], 0.0
        for step in range(steps):
            batch = LINE.sample(jax.random.fold_in(keys(trial).data, step), batch_size)
            x, y = np.float64(batch.x[0, :, 0]), np.float64(batch.y[:, 0])
            error = w * x + b - y
            mean += (np.mean(error**2) - mean) * max(1 / (step + 1), batch_size / WINDOW)
            gradient = np.array([np.mean(2 * error * x), np.mean(2 * error)])
            gradient *= min(1, trial.clip / np.linalg.norm(gradient))
            w, b = np.array([w, b]) - trial.learning_rate * gradient
        np.testing.assert_allclose(result.params["w"][i, 0, 0], w, rtol=1e-5)
        np.testing.assert_allclose(result.params["b"][i, 0], b, atol=1e-6)
        np.testing.assert_allclose(result.loss[i], mean, rtol=1e-4)
    assert result.status.tolist() == ["finished"] * 2 and result.step.tolist() == [steps] * 2
    assert result.solved_at.tolist() == [-1, -1]


@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_what_is_lowered_is_what_fit_runs(batching):
    """Bit for bit; and the trials have nothing to say to each other."""
    trials, devices = make_trials(seed=[7, 8, 9], learning_rate=0.05), jax.devices()
    settings: dict[str, Any] = dict(batch_size=10, optimizer="sgd", batching=batching)
    begin, run = (program.compile() for program in lower(LINE, SLOPE, trials, devices, **settings))
    layout = parallel.Layout(3, batching, parallel.everywhere())
    placed = layout.spread(trials)
    state = run((placed, layout.idle, begin(placed, ())), np.int32(5), ())
    fitted = fit(LINE, SLOPE, trials, 5, progress=False, **settings)
    assert_same(layout.gather(state.params), fitted.params)
    assert hlo.loop_collectives(run.as_text() or "") == {}


def test_a_trial_of_a_batch_is_the_trial_alone():
    """Bit for bit with map on a CPU, to rounding with vmap."""
    trials = make_trials(
        seed=[3, 1, 3, 2**32 - 1, 0],
        learning_rate=[1e-2, 3e-2, 1e-2, 1e-3, 1e-1],
        clip=[1, np.inf, 1, 0.1, 1],
        dropout=[0, 0.5, 0.2, 0, 0],
        init_scale=[1, 2, 1, 1, 0.5],
        weight_decay=[0, 0, 0, 0.1, 0],
    )
    together = fit(TASK, NETWORK, trials, 30, progress=False, batching="map")
    for i in (0, 3, 4):
        alone = fit(TASK, NETWORK, pick(trials, [i]), 30, progress=False, batching="map")
        assert_same(pick(together, [i]), alone)
    # Adam makes much of the rounding of small gradients, the more the longer it goes on.
    few, mapped = (
        fit(TASK, NETWORK, trials, 10, progress=False, batching=how) for how in ("map", "vmap")
    )
    np.testing.assert_allclose(mapped.loss, few.loss, rtol=1e-4)
    for one, other in zip(*map(jax.tree.leaves, (mapped.params, few.params)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    assert np.all(together.params["w_h"][0] != together.params["w_h"][2])  # dropout is the trial's


@dataclasses.dataclass(frozen=True)
class Uneven(Recall):
    """A loss of the whole batch that is no mean over sequences."""

    def loss(self, outputs, batch):
        return jax.nn.logsumexp(outputs * (batch.y[:, None] + 1)) ** 2


@pytest.mark.parametrize("task", [slow(TASK), Uneven(lag=3, symbols=4)])
def test_devices_that_share_a_batch_do_what_one_does(task):
    """To rounding, any loss: the same batch, the gradient of all of it, on every device."""
    trials = make_trials(seed=[5], learning_rate=0.05, clip=1.0)
    size = 16 * jax.device_count()
    for batching in ("auto", "vmap"):
        mesh = parallel.shared(parallel.everywhere(), 1, size, batching)
        assert parallel.sharers(mesh) == jax.device_count()
    one, many = (
        fit(
            task,
            NETWORK,
            trials,
            10,
            optimizer="sgd",
            batch_size=size,
            progress=False,
            batching=how,
        )
        for how in ("map", "auto")
    )
    np.testing.assert_allclose(many.loss, one.loss, rtol=1e-5)
    for some, other in zip(*map(jax.tree.leaves, (many.params, one.params)), strict=True):
        np.testing.assert_allclose(some, other, rtol=1e-4, atol=1e-6)


def test_devices_that_share_a_batch_draw_noise_of_their_own():
    """So that the rows of one are not those of another over again."""
    rows = []

    @dataclasses.dataclass(frozen=True)
    class Noisy(Slope):
        def apply(self, params, x, *, key=None, **rest):
            assert key is not None
            rows.append(x.shape[1])
            return super().apply(params, x) + jax.random.normal(key, (x.shape[1], 1))

    @dataclasses.dataclass(frozen=True)
    class Halves(Line):
        def metric(self, outputs, batch):
            return jnp.max(jnp.abs(outputs[:8] - outputs[8:]))

    result = fit(
        Halves(), Noisy(), make_trials(init_scale=1e-9), 1, batching="vmap", progress=False
    )
    assert set(rows) == {16 // jax.device_count()} and result.metric[0] > 0.1


def test_how_steps_are_cut_and_trials_are_ordered_makes_no_difference(monkeypatch):
    trials = make_trials(seed=[0, 1, 2, 3, 4], learning_rate=[1e-2, 1e-3, 1e-1, 1, 1e-2], clip=1.0)
    once = fit(TASK, NETWORK, trials, 41, progress=False)
    assert_same(fit(TASK, NETWORK, trials, 41, chunk=7, progress=False), once)
    order = np.array([2, 4, 0, 3, 1])
    assert_same(fit(TASK, NETWORK, pick(trials, order), 41, progress=False), pick(once, order))
    monkeypatch.setattr(loop, "PATIENCE", 0.0)  # one step a call
    assert_same(fit(TASK, NETWORK, trials, 41, progress=False), once)


@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_a_trial_that_diverges_is_frozen_and_its_neighbours_never_notice(batching):
    settings: Any = dict(optimizer="sgd", progress=False, batching=batching)
    trials = make_trials(
        seed=[0, 1, 2, 3], learning_rate=[0.1, 1e10, 0.1, 0.1], init_scale=[1, 1, 1e30, 1]
    )
    result = fit(LINE, SLOPE, trials, 60, **settings)
    assert result.status.tolist() == ["finished", "diverged", "diverged", "finished"]
    assert 0 < result.step[1] < 60 and result.step[2] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))
    assert np.isfinite(result.loss[1]) and np.isnan(result.loss[2])
    first = pick(trials, 2)
    assert_same(pick(result.params, 2), SLOPE.init(keys(first).init, **initial(first)))
    calm = fit(LINE, SLOPE, pick(trials, [0, 0, 3, 3]), 60, **settings)
    assert_same(pick(result, [0, 3]), pick(calm, [0, 2]))
    before = fit(LINE, SLOPE, trials, int(result.step[1]), **settings)
    assert_same(pick(before.params, 1), pick(result.params, 1))


def test_a_gradient_that_is_not_finite_freezes_a_trial_though_its_loss_is():
    @dataclasses.dataclass(frozen=True)
    class Cusp(Slope):
        def apply(self, params, x, **rest):
            return super().apply(params, x) + jnp.sqrt(0 * params["w"])

    result = fit(LINE, Cusp(), make_trials(), 3, optimizer="sgd", progress=False)
    assert result.status.tolist() == ["diverged"] and result.step.tolist() == [0]
    assert np.isfinite(result.params["w"]).all()


@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_a_solved_trial_stops_where_it_was_solved_and_training_ends_with_the_last(batching):
    task = dataclasses.replace(LINE, solvable=True)
    settings: Any = dict(optimizer="sgd", batch_size=20, progress=False, batching=batching)
    trials = make_trials(seed=[0, 1, 2], learning_rate=[0.1, 0.02, 1e-6])
    result = fit(task, SLOPE, trials, 400, **settings)
    assert result.status.tolist() == ["solved", "solved", "finished"]
    assert 50 <= result.solved_at[0] < result.solved_at[1] < 400 and result.solved_at[2] == -1
    assert result.step.tolist() == [*result.solved_at[:2], 400]
    assert np.all(result.metric[:2] > 0.99)
    until = fit(task, SLOPE, trials, int(result.solved_at[0]) - 1, **settings)
    assert until.status[0] == "finished" and until.metric[0] <= 0.99
    unsolvable = fit(LINE, SLOPE, trials, int(result.solved_at[0]), **settings)
    assert_same(pick(unsolvable.params, 0), pick(result.params, 0))
    assert (
        fit(task, SLOPE, pick(trials, [0, 1]), 10**9, **settings).status.tolist() == ["solved"] * 2
    )


def test_nothing_is_solved_before_the_window_has_been_seen():
    @dataclasses.dataclass(frozen=True)
    class Solved(Line):
        def solved(self, stats):
            return stats.loss >= 0

    result = fit(Solved(), SLOPE, make_trials(), 100, optimizer="sgd", progress=False)
    assert result.solved_at.tolist() == [-(-WINDOW // 16)]


@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_idle_places_take_no_step(batching):
    mesh = parallel.everywhere()
    layout = parallel.Layout(3, batching, mesh)
    trials = layout.spread(make_trials(seed=[0, 1, 2]))
    program = Job(LINE, SLOPE, make_trials(seed=[0, 1, 2]), Settings(16, "sgd", batching)).program
    state = program.run((trials, layout.idle, program.begin(trials, ())), np.int32(5), ())
    assert np.asarray(layout.idle).any()
    np.testing.assert_array_equal(state.step, np.where(layout.idle, 0, 5))


class Counting(Slope):
    """Counts how often it is traced."""

    traces = 0

    def apply(self, *args, **kwargs):
        Counting.traces += 1
        return super().apply(*args, **kwargs)


def test_one_compilation_serves_any_values_and_any_number_of_steps():
    def run(model, steps, **settings):
        fit(LINE, model, make_trials(**settings), steps, progress=False)

    run(Counting(), 3, seed=[0, 1, 2], gate_bias={"f": 0.0})
    traces = Counting.traces
    assert traces > 0
    run(
        Counting(), 250, seed=[5, 6, 7, 8], learning_rate=[1, 2, 3, 4], b1=0.5, b2=0.9, clip=1,
        weight_decay=0.1, init_scale=2, gate_bias={"f": 3.0},
    )  # fmt: skip
    assert Counting.traces == traces


def test_what_regularises_is_swept_under_one_compilation_and_off_at_evaluation():
    """Rates of every kind; none of them is a parameter that an optimiser could change."""
    cell = lj.cells.Zoneout(lj.cells.LSTM(3), {"h": 0.1, "c": 0.0})
    simple: Any = lj.initializers.identity(0.5)
    traces = []

    @dataclasses.dataclass(frozen=True)
    class Spec(lj.nn.SequenceSpec):
        def apply(self, *args, **given):
            traces.append(given.get("key") is not None)
            return super().apply(*args, **given)

    spec = Spec(cell, TASK.input_size, TASK.output_size, w_x=simple, w_h=simple)

    def run(**settings):
        trials = make_trials(learning_rate=0.1, weight_decay=0.5, **settings)
        return trials, fit(TASK, spec, trials, 3, batch_size=4, optimizer="sgd", progress=False)

    rates = ("input_dropout", "recurrent_dropout", "weight_drop", "input_noise")
    none = dict.fromkeys(rates, 0.0) | {"zoneout": {"h": 0.0}}
    _, plain = run(**none)
    compiled = len(traces)
    trials, swept = run(**dict.fromkeys(rates, 0.3) | {"zoneout": {"h": 0.4}})
    assert len(traces) == compiled and all(traces)
    layers = [result.params["stack"]["layers"][0] for result in (plain, swept)]
    assert set(layers[0]) == {"w_x", "w_h", "b"}
    w_h = [layer["w_h"] for layer in layers]
    assert np.abs(w_h[0] - w_h[1]).max() > 1e-4
    traces.clear()
    lj.evaluate(TASK, spec, swept.params, trials, sequences=4)
    assert traces and not any(traces)


def test_training_has_noise_from_a_key_and_evaluation_has_none():
    given = []

    @dataclasses.dataclass(frozen=True)
    class Spy(Slope):
        def apply(self, params, x, *, mask=None, reset=None, rates=None, key=None):
            given.append(key is not None)
            return super().apply(params, x, mask=mask, rates=rates, key=key)

    trials = make_trials()
    result = fit(LINE, Spy(), trials, 1, progress=False)
    assert all(given)
    given.clear()
    lj.evaluate(LINE, Spy(), result.params, trials, sequences=10)
    assert given and not any(given)


def test_moments_of_narrow_parameters_are_kept_in_float32():
    """In bfloat16 b2 = .999 is 1: the second moment would stay 0 and Adam would run away."""
    trials = make_trials(seed=[0, 1], learning_rate=0.05)
    wide = fit(LINE, SLOPE, trials, 20, progress=False)
    narrow = fit(LINE, Slope("bfloat16"), trials, 20, progress=False)
    assert narrow.params["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.params["w"].astype("f4"), wide.params["w"], atol=0.05)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": 2.5}, "steps must be an integer of at least 1, got 2.5"),
        ({"batch_size": -1}, "batch_size must be an integer of at least 1, got -1"),
        ({"chunk": 0}, "chunk must be an integer of at least 1, got 0"),
        ({"optimizer": "adamax"}, "optimizer must be one of sgd, .* got 'adamax'"),
        ({"batching": "pmap"}, "batching must be one of auto, vmap, map, got 'pmap'"),
    ],
)
def test_bad_arguments_are_refused_by_name(wrong, words):
    settings = {"steps": 1, "progress": False} | wrong
    with pytest.raises(ValueError, match=words):
        fit(LINE, SLOPE, make_trials(), **settings)


def test_the_compiler_tells_what_places_need():
    """Together every place needs its own temporaries; one after another they share them."""
    few, many, mapped = (
        lj.training.footprint(TASK, NETWORK, batching=how, places=places)
        for how, places in (("vmap", 1), ("vmap", 8), ("map", 8))
    )
    assert many > 4 * few > 0 and mapped < many / 2
