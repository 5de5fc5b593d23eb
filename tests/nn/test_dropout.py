"""Laws of dropout and of noise: of inputs, feedback, weights and between layers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lstm_jax as lj
from lstm_jax import cells, nn
from lstm_jax.nn import (
    Bidirectional,
    Rates,
    SequenceSpec,
    Stack,
    drop,
    drop_weights,
)
from tests.nn.small_models import (
    CELL,
    ENGINE,
    KEY,
    MASK,
    RESET,
    ZONED,
    B,
    D,
    H,
    T,
    assert_equal,
    draw,
    layer_of,
    params_of,
    spec_of,
)


def test_a_stack_drops_between_its_layers_and_nowhere_else() -> None:
    x, key = draw(1, T, B, D), jax.random.key(0)
    one, two = Stack([layer_of(0)]), Stack([layer_of(0), layer_of(1, width=H)])
    keys = jax.random.split(key, (2, 2))[0]

    @jax.jit
    def results(rate):
        _, h = two.layers[0](x)
        _, by_hand = two.layers[1](drop(h, rate, keys[1]))
        given: dict[str, Any] = dict(rates=Rates(dropout=rate), key=key)
        return (
            one(x, **given),
            one(x),
            two(x, **given)[1],
            two(x, rates=Rates(dropout=rate))[1],
            two(x)[1],
            by_hand,
        )

    dropped_one, plain_one, dropped, keyless, plain, by_hand = results(0.5)
    assert_equal(dropped_one, plain_one)
    assert_equal(keyless, plain)
    assert_equal(dropped, by_hand)
    assert not np.allclose(dropped, plain, atol=1e-3)


def test_drop_keeps_the_mean_and_the_share_that_was_asked_for() -> None:
    n, x = 100_000, draw(0, 100_000)
    twice = jax.jit(lambda rate, key: (drop(x, rate, key), drop(x, rate, None)))
    for rate in (0.0, 0.1, 0.5, 0.9):
        dropped, plain = twice(rate, jax.random.key(3))
        kept = np.asarray(dropped) != 0
        assert_equal(plain, x)
        assert_equal(dropped[kept], x[kept] / np.float32(1 - rate), rtol=1e-6)
        assert abs(kept.mean() - (1 - rate)) <= 4 * np.sqrt(rate * (1 - rate) / n)
    once, again, other = (twice(0.5, jax.random.key(seed))[0] for seed in (3, 3, 4))
    assert_equal(once, again)
    assert np.mean((np.asarray(once) == 0) == (np.asarray(other) == 0)) < 0.51


@pytest.mark.parametrize("shape", [None, (1, B, D)])
def test_what_was_dropped_is_drawn_again_and_not_stored(shape) -> None:
    def kept(function) -> list[int]:
        x, rate, key = draw(0, T, B, D), jnp.float32(0.3), jax.random.key(0)
        _, back = jax.vjp(lambda x: function(x, rate, key), x)
        return [leaf.size for leaf in jax.tree.leaves(back)]

    def stored(x, rate, key):
        return jnp.where(jax.random.bernoulli(key, 1 - rate, shape or x.shape), x, 0.0)

    assert max(kept(functools.partial(drop, shape=shape))) == 1  # the rate and the key
    assert max(kept(stored)) > 1


ALL = Rates(0.5, 0.5, 0.5, 0.5)


def test_a_layer_drops_inputs_feedback_and_weights_each_for_the_whole_call() -> None:
    """One mask a row for input and feedback, one for the weights, and keys for a noisy cell."""
    layer, quiet, x = layer_of(0, ZONED), layer_of(0), draw(1, T, B, D)
    keys = jax.random.split(jax.random.key(5), 4)
    masks = [drop(jnp.ones((B, width)), 0.5, k) for width, k in zip((D, H), keys, strict=False)]
    w_h = drop_weights(layer.params.w_h, 0.5, keys[2])

    @jax.jit
    def results(rates):
        return (
            layer(x, mask=MASK, reset=RESET, key=jax.random.key(5), rates=rates),
            lj.unroll(
                ZONED, layer.params._replace(w_h=w_h), x * masks[0][None], mask=MASK, reset=RESET,
                noise=lj.Noise(jax.random.split(keys[3], T), masks[1]), engine=ENGINE,
            ),
            layer(x, rates=rates),
            lj.unroll(ZONED, layer.params, x, engine=ENGINE),
            quiet(x, key=jax.random.key(5), rates=Rates(0.5, 0.0, 0.0, 0.0)),
            quiet(x),
        )  # fmt: skip

    found, by_hand, keyless, evaluated, at_zero, plain = results(ALL)
    assert_equal(found, by_hand)
    assert_equal(keyless, evaluated)
    assert_equal(at_zero, plain, atol=0.0)
    assert all(set(np.unique(mask)) == {0.0, 2.0} for mask in masks)
    assert 0 < np.mean(w_h == 0) < 1


def test_the_mean_of_dropped_weights_is_what_they_were_a_projection_too() -> None:
    pair, draws = (draw(0, 3, 2), draw(1, 2, 4)), 4000

    @jax.jit
    def products(rate, keys):
        def product(key):
            p, u = drop_weights(pair, rate, key)
            return p @ u

        return jax.vmap(product)(keys)

    found = np.asarray(products(0.4, jax.random.split(jax.random.key(2), draws)), np.float64)
    error = found.std(axis=0) / np.sqrt(draws)
    assert error.min() > 0
    assert np.all(np.abs(found.mean(axis=0) - pair[0] @ pair[1]) < 5 * error)
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, drop_weights(pair, None, KEY), pair))


def test_layers_and_directions_draw_for_themselves() -> None:
    """Two layers, and two directions, of the same parameters differ by their noise alone."""
    x = draw(1, T, B, D)
    both = Bidirectional(CELL, D, rngs=nnx.Rngs(0), engine=ENGINE)
    nnx.update(both.backward, nnx.state(both.forward))
    stack = Stack([layer_of(0, cells.RNN(D)), layer_of(0, cells.RNN(D))])
    rates = Rates(input_dropout=0.5)

    @jax.jit
    def results():
        first, second = (m(x, key=k, rates=rates)[1] for m, k in zip(
            (both.forward, both.backward), jax.random.split(KEY), strict=True))  # fmt: skip
        h = stack.layers[0](x, key=jax.random.split(KEY, (2, 2))[1, 0], rates=rates)[1]
        _, by_hand = stack.layers[1](h, key=jax.random.split(KEY, (2, 2))[1, 1], rates=rates)
        return (both(x, key=KEY, rates=rates)[1], jnp.concatenate([first, second], -1),
                stack(x, key=KEY, rates=rates)[1], by_hand)  # fmt: skip

    sides, sides_by_hand, deep, deep_by_hand = results()
    assert_equal(sides, sides_by_hand)
    assert_equal(deep, deep_by_hand)


def test_the_mean_over_keys_of_a_model_with_dropout_is_the_model_without() -> None:
    # One layer and a linear head: the dropout before the head has no bias at all.
    spec, draws, rate = spec_of(), 4000, 0.4
    params, x = params_of(spec), draw(1, T, B, D)

    @jax.jit
    def results(keys, rate):
        noisy = jax.vmap(lambda k: spec.apply(params, x, rates=Rates(dropout=rate), key=k))(keys)
        return noisy, spec.apply(params, x, rates=Rates(dropout=rate)), spec.apply(params, x)

    noisy, evaluated, plain = results(jax.random.split(jax.random.key(0), draws), rate)
    assert_equal(evaluated, plain)
    error = np.std(noisy, axis=0) / np.sqrt(draws)
    assert error.min() > 0
    assert np.all(np.abs(np.mean(noisy, axis=0) - plain) < 5 * error)
    assert len(np.unique(np.asarray(noisy)[:, 0, 0])) > 2 ** (H - 1)


def test_noise_on_the_input_is_normal_of_its_deviation_and_needs_a_key() -> None:
    x, key = jnp.full((60, 40, 20), 3.0), jax.random.key(1)
    n = np.asarray(nn.add_noise(x, jnp.float32(0.5), key) - x) / 0.5
    assert_equal(np.sort(n.ravel())[[7615, 24000, 40385]], [-1.0, 0.0, 1.0], atol=0.03)  # 48,000
    assert np.abs(np.corrcoef(n[:-1].ravel(), n[1:].ravel())[0, 1]) < 0.02
    assert nn.add_noise(x, 0.5, None) is x and nn.add_noise(x, None, key) is x
    with pytest.raises(TypeError, match="input_noise must be None for x of int32"):
        nn.add_noise(jnp.zeros((2, 3), jnp.int32), 0.5, key)


def test_noise_on_the_input_is_that_of_the_whole_model() -> None:
    """The same model on the noisy input; other noise of the same key stays what it was."""
    spec, x, key = spec_of(front="dense", front_width=4), draw(1, T, B, D), jax.random.key(2)
    params, trial = params_of(spec), Rates(input_noise=jnp.float32(0.7), dropout=jnp.float32(0.5))

    @jax.jit
    def run(x, trial, key):
        return spec.apply(params, x, rates=trial, key=key)

    noisy = nn.add_noise(x, 0.7, jax.random.split(key, 3)[2])
    silent = trial._replace(input_noise=jnp.float32(0.0))
    assert_equal(run(x, trial, key), run(noisy, silent, key), rtol=1e-5, atol=1e-6)
    assert_equal(run(x, silent, key), run(x, silent._replace(input_noise=None), key), atol=0.0)
    assert np.abs(run(x, trial, key) - run(x, silent, key)).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "wrong"),
    [(name, wrong) for name in Rates._fields for wrong in (-0.5, 1.0, np.nan)],
)
def test_rates_out_of_range_are_refused_by_name(name: str, wrong: float) -> None:
    if name == "input_noise" and wrong > 0:
        return
    spec = SequenceSpec(cells.Zoneout(cells.RNN(2), {"h": 0.1}), D, 1, engine="reference")
    given: dict[str, Any] = {name: {"h": wrong} if name == "zoneout" else wrong}
    with pytest.raises(ValueError, match=rf"rates.{name}.* must be .*, got {wrong}"):
        spec.apply(
            params_of(spec), jnp.zeros((2, 1, D)), rates=Rates(**given), key=jax.random.key(0)
        )
