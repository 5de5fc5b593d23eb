"""Widths in buckets: zeros about a network are nothing to it, and stay zeros while it learns."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import cells, fit, make_trials
from lstm_jax.nn import SequenceSpec, initializers
from lstm_jax.search import widths
from lstm_jax.tasks import Adding
from lstm_jax.training import fresh
from lstm_jax.training.trials import initial, keys
from tests.products import slow


def spec(cell, **settings) -> SequenceSpec:
    return SequenceSpec(cell, 2, 1, engine="reference", **settings)


def resized(model: SequenceSpec, hidden: int) -> SequenceSpec:
    return dataclasses.replace(model, cell=dataclasses.replace(model.cell, hidden=hidden))


def test_a_bucket_is_the_next_power_of_two():
    assert [widths.bucket(h) for h in (1, 2, 3, 4, 5, 23, 32, 33)] == [1, 2, 4, 4, 8, 32, 32, 64]


@pytest.mark.parametrize(
    "model",
    [
        spec(cells.LSTM(5), depth=2, bidirectional=True, learn_initial=True, dtype="float64"),
        spec(cells.GRU(5), front="dense", front_width=3, dtype="float64"),
        slow(spec(cells.odyssey("vanilla", 5), depth=2, dtype="float64")),
        spec(cells.odyssey("FGR", 5), depth=2, dtype="float64"),
    ],
    ids=["lstm", "gru", "peephole", "gate_recurrence"],
)
def test_outputs_and_gradients_are_those_of_the_narrow_network(model, x64):
    """To float64's rounding; the gradients of the zeros are zero exactly."""
    wide = resized(model, 8)
    draw, x_key, more = jax.random.split(jax.random.key(0), 3)

    @jax.jit
    def drawn():
        moved = functools.partial(jax.random.normal, more)
        return jax.tree.map(lambda p: p + 0.3 * moved(p.shape, p.dtype), model.init(draw))

    narrow = drawn()
    filled = widths.widen(narrow, jax.eval_shape(lambda: wide.init(draw)), 5, 8)
    filled = widths.shut(filled, wide.cell, 5)
    x = jax.random.normal(x_key, (6, 3, 2), jnp.float64)

    def gradients(network):
        def loss(params):
            y = network.apply(params, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(loss, has_aux=True))

    (slope, y), (slopes, outputs) = gradients(model)(narrow), gradients(wide)(filled)
    np.testing.assert_allclose(outputs, y, rtol=1e-12, atol=1e-14)
    expected = widths.widen(slope, slopes, 5, 8)
    ones = widths.widen(jax.tree.map(jnp.ones_like, slope), slopes, 5, 8)
    for got, want, there in zip(*map(jax.tree.leaves, (slopes, expected, ones)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-13)
        assert np.all(got[np.asarray(there) == 0] == 0)


def test_training_in_a_bucket_is_training_alone(standard_promotion):
    """From the narrow network's own draw; what was zero is zero to the end."""
    task, wide, hidden = Adding(4), spec(cells.LSTM(8)), [5, 8, 7]
    specs = [resized(wide, h) for h in hidden]
    settings: dict[str, Any] = dict(learning_rate=1e-2, weight_decay=0.1, clip=1.0, init_scale=1.5)
    trials = make_trials(seed=[3, 4, 5], gate_bias={"f": [1, 2, 3]}, **settings)
    start = widths.begin(task, specs, wide, trials, optimizer="adamw")
    together = fit(
        task, wide, trials, 8, optimizer="adamw", begin_from=start, batching="map", progress=False
    )
    first = make_trials(seed=3, gate_bias={"f": 1}, **settings)
    alone = fit(task, specs[0], first, 8, optimizer="adamw", batching="map", progress=False)
    trial = widths.pick(first, 0)
    drawn = jax.jit(specs[0].init)(keys(trial).init, **initial(trial))
    assert_close(widths.pick(start.params, 0), widths.widen(drawn, wide_shapes(wide), 5, 8), 1e-6)
    ended = widths.widen(widths.pick(alone.params, 0), wide_shapes(wide), 5, 8)
    assert_close(widths.pick(together.params, 0), ended, 1e-4)
    np.testing.assert_allclose(together.loss[0], alone.loss[0], rtol=1e-5)
    for i, h in enumerate(hidden):
        ones = jax.tree.map(lambda leaf: np.ones(leaf.shape), wide_shapes(specs[i]))
        there = widths.widen(ones, wide_shapes(wide), h, 8)
        for leaf, mask in zip(*map(jax.tree.leaves, (together.params, there)), strict=True):
            assert np.all(leaf[i][mask == 0] == 0)
    plain = fit(task, wide, trials, 8, optimizer="adamw", batching="map", progress=False)
    assert_close(widths.pick(plain.params, 1), widths.pick(together.params, 1), 1e-6)


def wide_shapes(wide):
    return jax.eval_shape(lambda: wide.init(jax.random.key(0)))


def assert_close(one, other, tolerance):
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("variant", ["vanilla", "FGR"])
def test_a_cropped_network_is_the_wide_draw_of_so_many_units_and_stays_it(
    variant, standard_promotion
):
    """The network of the draw's first units trains to the same, and the rest stays nothing."""
    task, start = Adding(4), {"w_x": initializers.normal(), "w_h": initializers.normal()}
    wide, hidden = spec(cells.odyssey(variant, 8), **start), [5, 8]
    trials = make_trials(seed=[3, 4], learning_rate=0.5, b1=[0.5, 0.9], weight_decay=0.1)
    settings: dict[str, Any] = dict(optimizer="nesterov", batching="map", progress=False)
    begun = widths.crop(task, hidden, wide, trials, optimizer="nesterov")
    together = fit(task, wide, trials, 6, begin_from=begun, **settings)
    narrow, first = resized(wide, 5), widths.pick(trials, [0])
    shapes = wide_shapes(narrow)
    own = widths.narrow(widths.pick(begun.params, 0), shapes, 5, 8)
    one = widths.pick(trials, 0)
    drawn = jax.jit(wide.init)(keys(one).init, **initial(one))
    assert_close(own, widths.narrow(drawn, shapes, 5, 8), 1e-6)
    alone = fit(
        task, narrow, first, 6, **settings,
        begin_from=fresh(task, narrow, jax.tree.map(lambda p: p[None], own), first,
                         optimizer="nesterov"),
    )  # fmt: skip
    ended = widths.widen(widths.pick(alone.params, 0), wide_shapes(wide), 5, 8)
    assert_close(widths.pick(together.params, 0), widths.shut(ended, wide.cell, 5), 1e-4)
    assert np.abs(ended["stack"]["layers"][0]["w_h"] - begun.params["stack"]["layers"][0]["w_h"][0]
                  ).max() > 1e-3  # fmt: skip
    plain = fit(task, wide, trials, 6, **settings)
    assert_close(widths.pick(plain.params, 1), widths.pick(together.params, 1), 1e-6)


INDEPENDENT = (
    cells.LSTM, cells.GRU, cells.RNN, cells.MinLSTM, lambda h: cells.odyssey("FGR", h),
)  # fmt: skip
DEPENDENT = (cells.LayerNormLSTM, cells.MemoryBlocks)


def test_cells_whose_units_depend_on_each_other_are_refused():
    for kind in INDEPENDENT:
        widths.check_cell(kind(5))
    for kind in DEPENDENT:
        with pytest.raises(ValueError, match=r"hidden=5: the units of \w+ depend on each other"):
            widths.check_cell(kind(5))
