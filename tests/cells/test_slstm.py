"""The sLSTM: its stabiliser changes nothing, its heads are apart, no start is too extreme."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.cells import SLSTM
from tests.cells_under_test import drawn_params
from tests.oracle import sigmoid

T, B, D, H = 9, 3, 2, 4


def unstabilised(cell, w_x, w_h, b, x, mask, reset):
    """Beck et al. 2024, equations 8 to 14, from zeros: outputs [T, B, H] of large numbers."""
    h = c = n = np.zeros((B, H), np.result_type(w_h))
    outputs = []
    for t in range(T):
        h, c, n = (np.where(reset[t][:, None], 0, s) for s in (h, c, n))
        i, f, z, o = np.split(x[t] @ w_x + h @ w_h + b, 4, axis=-1)
        i, f = np.exp(i), np.exp(f) if cell.forget_gate == "exponential" else sigmoid(f)
        new_c, new_n = f * c + i * np.tanh(z), f * n + i
        new = sigmoid(o) * new_c / new_n, new_c, new_n
        h, c, n = (np.where(mask[t][:, None], v, s) for v, s in zip(new, (h, c, n), strict=True))
        outputs.append(np.where(mask[t][:, None], h, 0))
    return np.array(outputs)


@pytest.mark.parametrize(
    "cell", [SLSTM(H, heads=2), SLSTM(H, forget_gate="exponential")], ids=lambda c: c.forget_gate
)
def test_the_stabiliser_changes_nothing(cell, x64):
    """Outputs, and their derivative by way of NumPy's complex numbers, with masks and resets."""
    rng = np.random.default_rng(0)
    params = lj.cells.mask_params(
        cell,
        lj.CellParams(
            *(jnp.asarray(2 * rng.normal(size=s)) for s in ((D, 4 * H), (H, 4 * H), (4 * H,))),
            theta=cell.Theta({}),
        ),
    )
    along = lj.cells.mask_params(
        cell, jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape)), params)
    )
    x = rng.normal(size=(T, B, D))
    mask, reset = rng.random((T, B)) < 0.8, rng.random((T, B)) < 0.2
    mask[:, 0], reset[:, 0] = True, False

    flags = [jnp.asarray(f) for f in (mask, reset)]

    def total(params):
        h = lj.unroll(cell, params, jnp.asarray(x), mask=flags[0], reset=flags[1])[1]
        return jnp.sum(h**2), h

    (_, h), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    w = jax.tree.map(lambda v, d: np.asarray(v) + 1e-30j * np.asarray(d), params, along)
    want = unstabilised(cell, w.w_x, w.w_h, w.b, x, mask, reset)
    np.testing.assert_allclose(h, np.real(want), 1e-10, 1e-14)
    got = sum(np.vdot(s, d) for s, d in zip(slope[:3], along[:3], strict=True))
    np.testing.assert_allclose(got, 1e30 * np.imag(np.sum(want**2)), 1e-10)


def test_heads_do_not_see_each_other(x64):
    """Not through the weights given, and not through those that do not exist."""
    cell = SLSTM(6, heads=3)
    rng = np.random.default_rng(0)
    params = drawn_params(cell, D, rng, jnp.float64)
    params = params._replace(w_h=jnp.asarray(rng.normal(size=(6, 24))))
    x = jnp.asarray(rng.normal(size=(4, 1, D)))
    start = cell.State(*(jnp.asarray(rng.uniform(0.5, 1, (1, 6))) for _ in range(4)))

    def heads(h, w_h):
        out = lj.unroll(cell, params._replace(w_h=w_h), x, start._replace(h=h))[1]
        return out[-1].reshape(3, 2).sum(-1)

    by_h, by_w = jax.jit(jax.jacrev(heads, (0, 1)))(start.h, params.w_h)
    by_h, by_w = by_h.reshape(3, 3, 2), by_w.reshape(3, 3, 2, 4, 3, 2)
    for a in range(3):
        others = [b for b in range(3) if b != a]
        assert not by_h[a, others].any()
        assert np.abs(by_h[a, a]).min() > 0
        seen = np.abs(by_w[a]).sum((1, 2, 4))
        assert seen[a, a] > 0
        assert not np.delete(seen.ravel(), 4 * a).any()


@pytest.mark.parametrize(
    "dtype, forget_gate", [(jnp.bfloat16, "sigmoid"), (jnp.float32, "exponential")]
)
def test_no_gate_is_too_large_or_too_small(dtype, forget_gate):
    """From zeros and after a reset, behind masks, for pre-activations of any size."""
    cell = SLSTM(1, forget_gate=forget_gate)
    size = np.array([-300.0, -90.0, -30.0, -1.0, 0.0, 1.0, 30.0, 90.0, 300.0])
    i, f = (a.ravel() for a in np.meshgrid(size, size))
    x = np.stack([np.stack([i, f]).T, np.stack([f, i]).T, np.stack([-i, f]).T] * 2)
    shape = x.shape[:2]
    mask, reset = np.ones(shape, bool), np.zeros(shape, bool)
    mask[1, ::2], reset[3] = False, True
    w_x, w_h, b = np.eye(2, 4), np.ones((1, 4)), np.array([0, 0, 0.5, 1])
    w_x, w_h, b, x = (jnp.asarray(a, dtype) for a in (w_x, w_h, b, x))
    params = lj.CellParams(w_x, w_h, b, ())

    def total(params, x, start):
        final, h = lj.unroll(cell, params, x, start, mask=mask, reset=reset)
        return jnp.sum(h), (final, h)

    start = lj.initial_state(cell, (shape[1],))
    slope, (final, h) = jax.jit(jax.grad(total, (0, 1), has_aux=True))(params, x, start)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((slope, final, h)))
    first = np.full((shape[1], 1), sigmoid(1) * np.tanh(0.5))
    np.testing.assert_allclose(np.asarray(h[0], np.float64), first, 1e-2)
    np.testing.assert_allclose(np.asarray(h[3], np.float64), first, 1e-2)


def test_a_zero_start_can_be_learned(x64):
    """The derivative in c and n where both are zero is that of (f c + i z) / (f n + i)."""
    cell = SLSTM(1)
    zero = lj.initial_state(cell, dtype=jnp.float64)
    gates = cell.Gates(*(jnp.array([v]) for v in (-3.0, 2.0, 0.7, 1.0)))
    new = functools.partial(lambda s: cell.update(gates, s, ())[0].h[0])
    slope = jax.grad(new)(zero)
    by_c = sigmoid(1.0) * sigmoid(2.0) / np.exp(-3.0)
    np.testing.assert_allclose(slope.c[0], by_c, 1e-12)
    np.testing.assert_allclose(slope.n[0], -by_c * np.tanh(0.7), 1e-12)


def test_the_forget_gate_starts_as_a_power_law_in_each_head():
    plain, exponential = (SLSTM(8, 2, kind) for kind in ("sigmoid", "exponential"))
    b = np.asarray(lj.init(plain, jax.random.key(0), D).b).reshape(4, 2, 4)
    law = [5 - 12 * (k / 3) ** 0.3 for k in range(4)]
    np.testing.assert_allclose(b[1], [law, law], 1e-6)
    assert not b[[0, 2, 3]].any()
    same = np.exp(lj.init(exponential, jax.random.key(0), D).b.reshape(4, 2, 4)[1])
    np.testing.assert_allclose(same, sigmoid(b[1]), 1e-6)
    assert np.isfinite(lj.init(SLSTM(2, heads=2), jax.random.key(0), D).b).all()
