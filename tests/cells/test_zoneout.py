"""Zoneout against its equations, its mean, and what it shares with the cell within."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax import interop
from tests.cells_under_test import drawn_params
from tests.oracle import lstm

T, B, D, H = 6, 3, 2, 4
LSTM = lj.cells.LSTM(H)
CELL = lj.cells.Zoneout(LSTM, {"h": 0.4, "c": 0.3})


def problem(cell=CELL, dtype=jnp.float32):
    """Returns parameters, inputs, a state and the keys of the instants."""
    rng = np.random.default_rng(0)
    params = drawn_params(cell, D, rng, dtype)
    x, *state = (jnp.asarray(rng.normal(size=n), dtype) for n in ((T, B, D), (B, H), (B, H)))
    return params, x, cell.State(*state), jax.random.split(jax.random.key(0), T)


def drawn(keys, rate, place):
    """[T, B, H] whether a unit keeps its value: row b from fold_in(keys[t], b), a key a state."""

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def rows(key, b):
        own = jax.random.split(jax.random.fold_in(key, b), 3)[place]
        return jax.random.bernoulli(own, jnp.float32(rate), (H,))

    return np.asarray(rows(keys, np.arange(B)))


def test_zoneout_equals_its_equations(x64):
    """In NumPy, instant by instant: with the draws, and with their means."""
    params, x, state, keys = problem(dtype=jnp.float64)
    parts = [np.split(np.asarray(w), 4, axis=-1) for w in (params.w_x, params.w_h, params.b)]
    weights = {k: tuple(p[n] for p in parts) for n, k in enumerate("ifgo")}
    shares = {
        "with draws": {"c": drawn(keys, 0.3, 1), "h": drawn(keys, 0.4, 2)},
        "with means": {"c": np.full((T, B, H), 0.3), "h": np.full((T, B, H), 0.4)},
    }
    assert 0 < shares["with draws"]["c"].mean() < 1
    for how, d in shares.items():
        noise = lj.Noise(keys) if how == "with draws" else None
        run = jax.jit(functools.partial(lj.trace, CELL, engine="reference"))
        found = jax.device_get(run(params, x, state, noise=noise).states)
        h, c = np.asarray(state.h), np.asarray(state.c)
        for t in range(T):
            _, (new_h, new_c), _ = lstm(weights, np.asarray(x[t : t + 1]), h, c)
            h = d["h"][t] * h + (1 - d["h"][t]) * new_h
            c = d["c"][t] * c + (1 - d["c"][t]) * new_c
            np.testing.assert_allclose(found.h[t], h, rtol=1e-12, atol=1e-14, err_msg=how)
            np.testing.assert_allclose(found.c[t], c, rtol=1e-12, atol=1e-14, err_msg=how)


def test_a_rate_of_zero_is_the_cell_itself_bit_for_bit():
    """With keys and without, gradients included; and a state that is not named is left alone."""
    quiet = lj.cells.Zoneout(LSTM, {"h": 0.0, "c": 0.0})
    half = lj.cells.Zoneout(LSTM, {"c": 0.5})
    params, x, state, keys = problem(quiet)

    def run(cell, noise):
        def loss(params):
            final, h = lj.unroll(cell, params, x, state, noise=noise)
            return jnp.sum(jnp.sin(h)), (final, h)

        return jax.value_and_grad(loss, has_aux=True)(params)

    plain, zoned, meant = jax.jit(
        lambda: (run(LSTM, None), run(quiet, lj.Noise(keys)), run(quiet, None))
    )()
    for found in (zoned, meant):
        jax.tree.map(np.testing.assert_array_equal, found, plain)
    one, want = jax.device_get(
        jax.jit(
            lambda: (
                lj.step(half, params, state, x[0], noise=lj.Noise(keys[0]))[0],
                lj.step(LSTM, params, state, x[0])[0],
            )
        )()
    )
    np.testing.assert_array_equal(one.h, want.h)
    kept = one.c == np.asarray(state.c)
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(one.c[~kept], want.c[~kept])


def test_the_mean_over_draws_is_the_expectation_and_units_are_independent():
    params, x, state, _ = problem()
    draws = 4000

    @jax.jit
    def steps(keys):
        noisy = jax.vmap(lambda key: lj.step(CELL, params, state, x[0], noise=lj.Noise(key))[0])
        return noisy(keys), lj.step(CELL, params, state, x[0])[0]

    noisy, meant = steps(jax.random.split(jax.random.key(7), draws))
    kept = {}
    for name, rate in (("h", 0.4), ("c", 0.3)):
        found, old = np.asarray(getattr(noisy, name), np.float64), getattr(state, name)
        error = found.std(axis=0) / np.sqrt(draws)
        assert np.all(np.abs(found.mean(axis=0) - getattr(meant, name)) < 5 * error)
        kept[name] = (found == np.asarray(old)).reshape(draws, -1)
        assert np.all(np.abs(kept[name].mean(0) - rate) < 5 * np.sqrt(rate * (1 - rate) / draws))
    # No two units move together, of one state or of two, of one row or of two.
    correlations = np.corrcoef(np.concatenate([kept["h"], kept["c"]], axis=1).T)
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / np.sqrt(draws)


def test_rates_are_traced_and_never_trained():
    """One compilation for any rates, a batch of them too; no gradient, of draws or of means."""
    params, x, state, keys = problem()
    traces = []

    @jax.jit
    def slopes(rates):
        traces.append(rates)

        def loss(rate, noise):
            theta = CELL.Theta({"zoneout_h": rate})
            _, h = lj.unroll(CELL, params._replace(theta=theta), x, state, noise=noise)
            return jnp.sum(h**2)

        def slope(noise):
            return jax.vmap(lambda rate: jax.value_and_grad(loss)(rate, noise))(rates)

        return slope(lj.Noise(keys)), slope(None)

    both = slopes(jnp.array([0.0, 0.5])), slopes(jnp.array([0.9, 0.5]))
    assert len(traces) == 1
    for (some, slope), (other, again) in zip(*both, strict=True):
        np.testing.assert_array_equal([slope, again], np.zeros((2, 2)))
        assert some[1] == other[1]
        assert len({float(some[0]), float(some[1]), float(other[0])}) == 3


def test_all_else_is_the_cell_within():
    inner = lj.cells.odyssey("FGR", 3)
    cell = lj.cells.Zoneout(inner, {"f": 0.2, "c": 0.1})
    for word in ("hidden", "gates", "states", "reads", "bias", "unbiased", "ranges", "Gates",
                 "State"):  # fmt: skip
        assert getattr(cell, word) == getattr(inner, word), word
    assert cell.widths() == inner.widths()
    np.testing.assert_array_equal(cell.wiring("g"), inner.wiring("g"))
    assert type(lj.initial_state(CELL)) is lj.LSTMState
    theta = lj.init(cell, jax.random.key(0), 2).theta
    assert set(theta._fields) == {"p_i", "p_f", "p_o"}
    assert CELL == lj.cells.Zoneout(LSTM, {"c": 0.3, "h": 0.4}) == dataclasses.replace(CELL)
    assert hash(CELL) == hash(dataclasses.replace(CELL))
    assert str(CELL) == "Zoneout(cell=LSTM(hidden=4), rates=(('c', 0.3), ('h', 0.4)))"


@dataclasses.dataclass(frozen=True)
class Jittered(lj.cells.LSTM):
    """An LSTM whose h is multiplied by noise of its own."""

    def draw(self, theta, key):
        return {"share": jax.random.uniform(key, (self.hidden,))}

    def update(self, gates, state, theta, draws=None):
        new, activated = super().update(gates, state, theta)
        return new._replace(h=new.h * (0.5 if draws is None else draws.share)), activated


def test_a_noisy_cell_within_has_a_key_of_its_own():
    inner = Jittered(H)
    cell = lj.cells.Zoneout(inner, {"c": 0.5})
    gates = cell.Gates(*(jnp.linspace(-1, n, H) for n in range(4)))
    state, theta = cell.State(*jnp.ones((2, H))), cell.Theta({"zoneout_c": jnp.float32(0.5)})
    key = jax.random.key(3)
    draws = cell.Draws(cell.draw(theta, key))
    drawn, meant = cell.update(gates, state, theta, draws)[0], cell.update(gates, state, theta)[0]
    none = inner.Theta({})
    share = inner.Draws(inner.draw(none, jax.random.split(key)[0]))
    own = inner.update(gates, state, none, share)[0]
    np.testing.assert_array_equal(drawn.h, own.h)
    np.testing.assert_array_equal(meant.h, inner.update(gates, state, inner.Theta({}))[0].h)
    assert np.abs(drawn.h - meant.h).max() > 0.01


def test_a_saved_model_is_loaded_with_its_rates(tmp_path):
    spec = lj.nn.SequenceSpec(CELL, D, 1, bidirectional=True)
    params = jax.jit(spec.init)(jax.random.key(0))
    interop.save_model(tmp_path / "model", spec, params)
    loaded, same = interop.load_model(tmp_path / "model")
    assert loaded == spec and loaded.cell == CELL
    jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.mark.parametrize(
    ("cell", "rates", "error", "words"),
    [
        (lj.cells.GRU(2), {"c": 0.1}, ValueError, r"rates names state 'c'; GRU\(hidden=2\) has"),
        (LSTM, {"c": 1.0}, ValueError, r"rates\['c'\] must be in \[0, 1\), got 1.0"),
        (LSTM, {"h": -0.1}, ValueError, r"rates\['h'\] must be in \[0, 1\), got -0.1"),
        (CELL, {"h": 0.1}, TypeError, "cell must not be a Zoneout itself"),
    ],
)
def test_bad_rates_are_named(cell, rates, error, words):
    with pytest.raises(error, match=words):
        lj.cells.Zoneout(cell, rates)
