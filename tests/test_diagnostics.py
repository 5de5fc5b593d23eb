"""Diagnostics: against finite differences, an oracle in float64, and closed forms."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lstm_jax as lj
from lstm_jax import cells, diagnostics
from lstm_jax.cells import feedback_width
from tests import oracle
from tests.cells_under_test import Peephole

T, B, D, H = 6, 3, 2, 4
INSTANTS = (1, T - 1)  # where states are changed by a little
pytestmark = pytest.mark.usefixtures("x64")


@dataclass(frozen=True)
class Linear(lj.Cell):
    """h' = x w_x + h w_h + b."""

    gates = ("h",)

    def update(self, gates, state, theta):
        return state._replace(h=gates.h), gates


def singular_values(*args: Any, **options: Any) -> Any:
    return jnp.linalg.svd(diagnostics.jacobians(*args, **options), compute_uv=False)


def drawn(cell: lj.Cell, seed: int = 0, scale: float = 1.0, inputs: int = D) -> lj.CellParams:
    """Parameters in float64 of a size that saturates nothing and vanishes nowhere."""
    draw = np.random.default_rng(seed).normal
    shapes = {
        "w_x": (inputs, sum(cell.width(g) for g in cell.x_blocks)),
        "w_h": (feedback_width(cell), sum(cell.width(g) for g in cell.h_blocks)),
        "b": (sum(cell.width(g) for g in cell.gates),),
    }
    theta = cell.Theta(
        {n: v.astype(jnp.float64) for n, v in cell.init_theta(jax.random.key(0)).items()}
    )
    weights = {n: jnp.asarray(draw(scale=0.6 * scale, size=s)) for n, s in shapes.items()}
    return cells.mask_params(cell, lj.CellParams(**weights, theta=theta))


def inputs(seed: int = 1, steps: int = T, rows: int = B) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(steps, rows, D)))


def packed(row: Any) -> np.ndarray:
    return np.concatenate(list(row), axis=-1)


# Gradients. ---------------------------------------------------------------------------------------


def test_gradients_of_the_lstm_are_the_oracles_under_masks_and_resets():
    cell, x = cells.LSTM(H), inputs()
    params = drawn(cell)
    rng = np.random.default_rng(2)
    mask, reset = rng.random((T, B)) < 0.7, rng.random((T, B)) < 0.2
    flags: Any = {"mask": jnp.asarray(mask), "reset": jnp.asarray(reset)}
    d_outputs = rng.normal(size=(T, B, H))
    run = jax.jit(
        lambda: (
            diagnostics.state_gradients(cell, params, x, lambda h: jnp.sum(h * d_outputs), **flags),
            lj.trace(cell, params, x, **flags).states,
        )
    )
    gradients, states = run()
    blocks = [np.split(np.asarray(w), 4, axis=-1) for w in (params.w_x, params.w_h, params.b)]
    weights = {g: [block[k] for block in blocks] for k, g in enumerate(cell.gates)}
    for t in range(T - 1):
        later = slice(t + 1, None)
        h, c = np.asarray(states.h[t]), np.asarray(states.c[t])
        *_, tape = oracle.lstm(weights, np.asarray(x[later]), h, c, mask[later], reset[later])
        nothing = np.zeros_like(h)
        _, _, (d_h, d_c) = oracle.lstm_gradients(
            weights, tape, d_outputs[later], nothing, nothing, reset[later]
        )
        d_h = d_h + np.where(mask[t][:, None], d_outputs[t], 0)
        assert_allclose(gradients.h[t], d_h, atol=1e-14)
        assert_allclose(gradients.c[t], d_c, atol=1e-14)
    assert_allclose(gradients.h[-1], np.where(mask[-1][:, None], d_outputs[-1], 0))
    assert_array_equal(gradients.c[-1], 0)
    assert np.abs(gradients.c[0]).max() > 1e-3


@pytest.mark.parametrize(
    "cell",
    [cells.GRU(H), Peephole(H), cells.MemoryBlocks(H, 2)],
    ids=lambda cell: type(cell).__name__,
)
def test_gradients_and_jacobians_are_those_of_finite_differences(cell):
    params, x, eps = drawn(cell), inputs(), 1e-6
    draw = np.random.default_rng(3).normal
    along = cell.State(*(jnp.asarray(draw(size=(T, B, cell.width(s)))) for s in cell.states))

    def loss(h):
        return jnp.sum(jnp.sin(h))

    @jax.jit
    def sides():
        states, changed = lj.trace(cell, params, x).states, []
        for t in INSTANTS:
            for sign in (-1, 1):
                state = jax.tree.map(lambda s, a, t=t, n=sign: s[t] + n * eps * a[t], states, along)
                final, h = lj.unroll(cell, params, x[t + 1 :], state)
                now = jax.vmap(cell.output)(state)[None]
                changed.append((loss(jnp.concatenate([now, h])), final))
        return changed

    exact = jax.jit(
        lambda: (
            diagnostics.state_gradients(cell, params, x, loss),
            diagnostics.jacobians(cell, params, x),
        )
    )
    (gradients, jacobians), changed = exact(), sides()
    for n, t in enumerate(INSTANTS):
        (below, start), (above, end) = changed[2 * n : 2 * n + 2]
        expected = sum(np.sum(g[t] * a[t]) for g, a in zip(gradients, along, strict=True))
        assert_allclose((above - below) / (2 * eps), expected, rtol=1e-6, atol=1e-9)
        slope = (packed(end) - packed(start)) / (2 * eps)
        moved = np.einsum("bij,bj->bi", jacobians[T - 1 - t], packed(along)[t])
        assert_allclose(slope, moved, rtol=1e-6, atol=1e-8)


def test_a_norm_is_that_of_the_gradient_lag_first():
    cell, params, x = cells.LSTM(H), drawn(cells.LSTM(H)), inputs()
    loss = lambda h: jnp.sum(h[-1] ** 2)  # noqa: E731
    looks = diagnostics.state_gradients, diagnostics.gradient_norms
    gradients, norms = jax.jit(lambda: [look(cell, params, x, loss) for look in looks])()
    assert norms.c.shape == (T, B)
    for name in cell.states:
        expected = np.linalg.norm(getattr(gradients, name), axis=-1)[::-1]
        assert_allclose(getattr(norms, name), expected, rtol=1e-12)
    assert_array_equal(norms.c[0], 0)  # the output reads c_T through h_T only, which stays
    assert (norms.h[0] > 0).all()


def test_norms_whose_squares_would_underflow_are_told():
    cell = Linear(2)
    params = lj.CellParams(jnp.ones((1, 2)), 0.5 * jnp.eye(2), jnp.zeros(2), cell.Theta({}))
    params, x = jax.tree.map(jnp.float32, (params, jnp.ones((101, 1, 1))))
    norms = diagnostics.gradient_norms(cell, params, x, lambda h: h[-1, 0, 0])
    assert norms.h.dtype == jnp.float32
    assert_allclose(norms.h[:, 0], 0.5 ** np.arange(101), rtol=1e-6)
    assert float(norms.h[100, 0]) ** 2 < 1e-60


def test_the_constant_error_carousel_is_flat_over_a_thousand_steps():
    whole = cells.MemoryBlocks(6, size=2)
    params, x = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), (drawn(whole, scale=0.3), inputs(steps=1001))
    )

    @functools.partial(jax.jit, static_argnums=0)
    def norms(cell):
        return diagnostics.gradient_norms(cell, params, x, lambda h: jnp.sum(h[-1]))

    cut = norms(cells.MemoryBlocks(6, size=2, truncated=True))
    assert cut.c.dtype == jnp.float32
    assert (cut.c[1] > 0).all()
    assert_array_equal(cut.c[1:], np.tile(cut.c[1], (1000, 1)))  # to the last bit
    assert_array_equal(cut.h[1:], 0)
    free = np.asarray(norms(whole).c[1:])
    assert (free.max(0) > 1.1 * free.min(0)).all()


def test_along_the_cell_the_norm_falls_as_the_sigmoid_of_the_bias_to_the_lag():
    cell, x = cells.LSTM(3), inputs(steps=102)

    @jax.jit
    @jax.vmap
    def look(b):
        params = lj.CellParams(jnp.zeros((D, 12)), jnp.zeros((3, 12)), b, cell.Theta({}))
        norms = diagnostics.gradient_norms(cell, params, x, lambda h: jnp.sum(h[-1])).c[1:]
        return norms, diagnostics.log_slope(norms)

    biases = (1.0, 5.0)
    every, lines = look(jnp.asarray([np.repeat([0.5, bias, 0.3, 0.2], 3) for bias in biases]))
    for bias, norms, slope, deviation in zip(biases, every, *lines, strict=True):
        f = 1 / (1 + np.exp(-bias))
        left = norms / norms[:1]
        assert_allclose(left, np.tile(f ** np.arange(101)[:, None], B), rtol=1e-12)
        assert_allclose(left[100], {1.0: 2.5e-14, 5.0: 0.51}[bias], rtol=0.01)
        assert_allclose(slope, np.log(f), rtol=1e-12)
        assert_allclose(deviation, 0, atol=1e-12)


# Jacobians. ---------------------------------------------------------------------------------------


def test_singular_values_of_a_linear_network_are_those_of_powers_of_its_weights():
    cell, params, x = Linear(5), drawn(Linear(5)), inputs()
    J, values = jax.jit(
        lambda: (diagnostics.jacobians(cell, params, x), singular_values(cell, params, x))
    )()
    W = np.asarray(params.w_h)
    for k in range(T):
        power = np.linalg.matrix_power(W, k)
        assert_allclose(J[k], np.tile(power.T, (B, 1, 1)), atol=1e-12)
        assert_allclose(values[k, 0], np.linalg.svd(power, compute_uv=False), rtol=1e-9)


# Invariances. -------------------------------------------------------------------------------------


def test_what_is_held_passes_gradients_on_and_padding_changes_nothing():
    cell, params, x = cells.LSTM(H), drawn(cells.LSTM(H)), inputs()
    gaps = jnp.asarray([0, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1], bool)  # six of them count
    padded = jnp.zeros((11, B, D)).at[np.flatnonzero(gaps)].set(x)
    mask = jnp.tile(gaps[:, None], B)

    @jax.jit
    def of(x, mask):
        # the loss reads the final state alone: the last instant counts in both
        norms = diagnostics.gradient_norms(cell, params, x, lambda h: jnp.sum(h[-1]), mask=mask)
        return norms, singular_values(cell, params, x, mask=mask)

    norms, values = of(padded, mask)
    plain, alone = of(x, jnp.ones((T, B), bool))
    counted = np.flatnonzero(gaps[::-1])
    for name in cell.states:
        assert_allclose(getattr(norms, name)[counted], getattr(plain, name), rtol=1e-12)
    assert_allclose(values[counted], alone, rtol=1e-9, atol=1e-14)
    held = 11 - 1 - np.flatnonzero(~np.asarray(gaps))[2:]  # an earlier state is held over these
    for lag in held:
        assert_allclose(norms.c[lag], norms.c[lag + 1], rtol=1e-12)


def test_a_reset_cuts():
    cell, params, x = cells.LSTM(H), drawn(cells.LSTM(H)), inputs()
    reset = jnp.zeros((T, B), bool).at[3, 1].set(True)
    norms = diagnostics.gradient_norms(cell, params, x, lambda h: jnp.sum(h[-1]), reset=reset)
    before = np.arange(T)[::-1] < 3
    for name in cell.states:
        assert_array_equal(getattr(norms, name)[before, 1], 0)
        assert (np.asarray(getattr(norms, name))[1:, [0, 2]] > 0).all()


def test_rows_are_independent():
    cell, params, x = cells.GRU(H), drawn(cells.GRU(H)), inputs()
    other = x.at[:, 1].set(9.0)

    @jax.jit
    def of(x):
        return (
            diagnostics.gradient_norms(cell, params, x, lambda h: jnp.sum(h[-1] ** 2)),
            singular_values(cell, params, x),
        )

    (n, v), (m, w) = of(x), of(other)
    for a, b in ((n.h.T, m.h.T), (jnp.swapaxes(v, 0, 1), jnp.swapaxes(w, 0, 1))):
        assert_allclose(a[0], b[0], rtol=1e-12)
        assert_allclose(a[2], b[2], rtol=1e-12)
        assert not np.allclose(a[1], b[1], rtol=1e-3)


def test_it_works_in_a_training_loop_over_many_networks_at_once():
    cell, x = cells.LSTM(H), inputs()
    many = [drawn(cell, seed) for seed in range(3)]

    def look(params):
        trace = lj.trace(cell, params, x)
        norms = diagnostics.gradient_norms(cell, params, x, lambda h: jnp.mean(h[-1] ** 2))
        return (
            norms,
            diagnostics.log_slope(norms.c[1:]),
            singular_values(cell, params, x),
            diagnostics.saturation(trace.gates),
            diagnostics.decay_time(trace.gates.f),
        )

    together = jax.jit(jax.vmap(look))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *many))
    look = jax.jit(look)
    alone = [look(params) for params in many]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-7, atol=1e-12), together, stacked)


# Lines and gates. ---------------------------------------------------------------------------------


def test_a_slope_is_that_of_least_squares_over_what_has_a_logarithm():
    norms = np.random.default_rng(0).lognormal(size=(20, 2)) * 0.7 ** np.arange(20)[:, None]
    log_slope = jax.jit(diagnostics.log_slope)
    line = log_slope(jnp.asarray(norms))
    for row in range(2):
        (slope, _), (square,), *_ = np.polyfit(np.arange(20), np.log(norms[:, row]), 1, full=True)
        assert_allclose(line.slope[row], slope, rtol=1e-10)
        assert_allclose(line.deviation[row], np.sqrt(square / 20), rtol=1e-10)
    gaps = jnp.asarray(0.5 ** np.arange(6.0)).at[jnp.array([2, 4])].set(0).at[5].set(jnp.inf)
    assert_allclose(log_slope(gaps).slope, np.log(0.5), rtol=1e-12)
    assert np.isnan(log_slope(jnp.asarray([0.0, 1.0, 0.0])).slope)


def test_saturation_is_the_share_of_what_counts_for_each_unit():
    f = jnp.asarray([0.05, 0.5, 0.95, 0.99, 0.0])[:, None, None] * jnp.ones((1, 2, 3))
    f = f.at[:, :, 2].set(0.5)
    gates = cells.GRU(3).Gates(f, f, f, f)
    shares = diagnostics.saturation(gates)
    assert_allclose(shares.below.z, [0.4, 0.4, 0])
    assert_allclose(shares.above.z, [0.4, 0.4, 0])
    mask = jnp.ones((5, 2), bool).at[4].set(False).at[0, 1].set(False)  # seven are left
    counted = diagnostics.saturation(gates, mask, high=0.97)
    assert_allclose(counted.below.r, [1 / 7, 1 / 7, 0])
    assert_allclose(counted.above.r, [2 / 7, 2 / 7, 0])


def test_time_scales():
    f = jnp.asarray([0.0, 0.5, 0.9, 0.99, 1.0])
    constant = jnp.tile(f, (6, 2, 1))
    tau = diagnostics.decay_time(constant)
    assert_allclose(jnp.exp(-6 / tau), f**6, rtol=1e-12)
    assert (tau[0], tau[-1]) == (0, np.inf)
    assert_allclose(tau[3], 100 - 0.5, rtol=1e-3)
    varying = jnp.asarray(np.random.default_rng(0).uniform(0.2, 1, (9, 1, 2)))
    mask = jnp.ones((9, 1), bool).at[3:5].set(False)
    tau = diagnostics.decay_time(varying, mask)
    left = np.delete(np.asarray(varying[:, 0]), [3, 4], axis=0)
    assert_allclose(np.exp(-7 / tau), left.prod(0), rtol=1e-12)
    assert (tau < 1 / (1 - left.mean(0))).all()


def test_what_does_not_fit_is_refused_at_the_door():
    cell, params = cells.LSTM(H), drawn(cells.LSTM(H))
    with pytest.raises(ValueError, match=r"x must be \[T, B, D\], time first, with D = 2"):
        diagnostics.gradient_norms(cell, params, jnp.zeros((T, B, 5)), jnp.sum)
    with pytest.raises(ValueError, match="mask must hold booleans"):
        diagnostics.jacobians(cell, params, inputs(), mask=jnp.full((T, B), 0.5))
