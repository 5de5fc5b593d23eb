"""Laws of layers, stacks and sequence models, and of the two functions that learning sees."""

import dataclasses
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
    Recurrent,
    SequenceModel,
    SequenceSpec,
    Stack,
    drop,
    drop_weights,
    initializers,
)
from lstm_jax.types import Array

T, B, D, H, V = 7, 4, 3, 5, 2
CELL = cells.LSTM(H)
ENGINE = "reference"
KEY = jax.random.key(11)


def flags(*true: list[int]) -> Array:
    """[T, B]: the instants at which each row is True."""
    rows = [np.isin(np.arange(T), instants) for instants in true]
    return jnp.asarray(np.stack(rows, axis=1))


# A full row, a row with a gap and padding, a row of one instant, a row of none.
MASK = flags([0, 1, 2, 3, 4, 5, 6], [0, 1, 3, 4], [0], [])
# At the first instant and side by side, in a gap and in the padding, never, in the row of none.
RESET = flags([0, 3, 4], [2, 6], [], [3])
VALID = np.asarray(MASK)


def draw(seed: int, *shape: int) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def a_state(seed: int, cell: lj.Cell = CELL, rows: int = B) -> Any:
    return cell.State(*(draw(seed + i, rows, cell.width(s)) for i, s in enumerate(cell.states)))


def layer_of(seed: int, cell: lj.Cell = CELL, width: int = D, **options: Any) -> Recurrent:
    return Recurrent(
        cell, width, rngs=nnx.Rngs(seed), w_h=initializers.glorot(), engine=ENGINE, **options
    )


def spec_of(**changes: Any) -> SequenceSpec:
    spec = SequenceSpec(CELL, D, V, w_h=initializers.glorot(), engine=ENGINE)
    return dataclasses.replace(spec, **changes)


def params_of(spec: SequenceSpec) -> Any:
    """Parameters of the spec's shapes, none of them zero: compiles nothing."""
    shapes, treedef = jax.tree.flatten(jax.eval_shape(spec.init, jax.random.key(0)))
    leaves = [0.5 * draw(100 + i, *leaf.shape).astype(leaf.dtype) for i, leaf in enumerate(shapes)]
    return jax.tree.unflatten(treedef, leaves)


def drawn(spec: SequenceSpec, seed: int = 0, **given: Any) -> Any:
    return jax.jit(spec.init)(jax.random.key(seed), **given)


def assert_equal(found: Any, expected: Any, rtol: float = 0.0, atol: float = 1e-6) -> None:
    def same(a, b):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)

    jax.tree.map(same, found, expected)


# One layer. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [CELL, cells.GRU(H), cells.RNN(H)])
def test_a_layer_is_unroll_with_parameters_of_its_own(cell: lj.Cell) -> None:
    layer = layer_of(0, cell)

    @jax.jit
    def both(x, state, initial, mask, reset):
        given: dict[str, Any] = dict(initial=initial, mask=mask, reset=reset)
        one = layer(x, state, **given)
        return one, lj.unroll(cell, layer.params, x, state, engine=ENGINE, **given)

    found, expected = both(draw(1, T, B, D), a_state(2, cell), a_state(5, cell), MASK, RESET)
    assert_equal(found, expected)
    assert layer.output_size == found[1].shape[-1]
    assert layer.params.w_x.shape[0] == D


def test_a_layer_draws_its_parameters_as_init_does() -> None:
    given: dict[str, Any] = dict(w_x=initializers.identity(0.3), b=initializers.chrono(9))
    layer = layer_of(3, **given)
    key = nnx.Rngs(3).params()
    assert_equal(layer.params, lj.init(CELL, key, D, w_h=initializers.glorot(), **given))


def test_a_learned_initial_state_starts_every_sequence_and_has_a_gradient() -> None:
    learned = a_state(7, rows=1)
    layer = layer_of(0, learn_initial=True)
    assert layer.initial is not None
    for name in CELL.states:
        assert not np.any(layer.initial[name][...])  # zero at first
        layer.initial[name][...] = getattr(learned, name)[0]
    graph, params = nnx.split(layer)
    x, other = draw(1, T, B, D), a_state(5)

    def run(params, **given):
        return nnx.merge(graph, params)(x, reset=RESET, mask=MASK, **given)

    @jax.jit
    def results(params):
        grads = jax.grad(lambda p: run(p)[1].sum())(params)
        broadcast = jax.tree.map(lambda s: jnp.repeat(s, B, 0), learned)
        return run(params), run(params, initial=broadcast), run(params, initial=other), grads

    by_itself, by_hand, with_other, grads = results(params)
    assert_equal(by_itself, by_hand)
    assert not np.allclose(by_itself[1], with_other[1])
    for name in CELL.states:
        assert np.all(np.abs(grads["initial"][name][...]) > 0)


def reversed_segments(x: Array, mask: Array, reset: Array):
    """Every segment of every row, back to front, as a row of its own: x, mask and (row, a, z)."""
    where = []
    for row in range(B):
        starts = sorted({0, *np.flatnonzero(np.asarray(reset)[:, row]).tolist()})
        where += [(row, a, z) for a, z in zip(starts, [*starts[1:], T], strict=True)]
    xs, masks = np.zeros((T, len(where), D), np.float32), np.zeros((T, len(where)), bool)
    for n, (row, a, z) in enumerate(where):
        xs[: z - a, n], masks[: z - a, n] = x[a:z, row][::-1], mask[a:z, row][::-1]
    return jnp.asarray(xs), jnp.asarray(masks), where


def test_a_reversed_layer_is_the_forward_layer_on_each_reversed_segment() -> None:
    forward, backward = layer_of(0), layer_of(0, reverse=True)
    x, state, initial = draw(1, T, B, D), a_state(2), a_state(5)
    xs, masks, where = reversed_segments(x, MASK, RESET)
    # The call starts behind the last segment of a row; the others start from `initial`.
    picks = [(state if z == T else initial, row) for row, _, z in where]
    starts = CELL.State(*(jnp.stack([getattr(s, f)[r] for s, r in picks]) for f in CELL.states))
    final, h = jax.jit(
        lambda: backward(x, state, initial=initial, mask=MASK, reset=RESET),
    )()
    ends, hs = jax.jit(lambda: forward(xs, starts, mask=masks))()
    for n, (row, a, z) in enumerate(where):
        assert_equal(h[a:z, row], hs[: z - a, n][::-1])
        if a == 0:
            assert_equal([f[row] for f in final], [f[n] for f in ends])
    assert np.abs(h[0, 0]).min() > 0
    assert not np.any(h[~VALID])


def test_a_bidirectional_layer_is_a_forward_and_a_reversed_one_side_by_side() -> None:
    both = Bidirectional(CELL, D, rngs=nnx.Rngs(4), w_h=initializers.glorot(), engine=ENGINE)
    x, states, begins = draw(1, T, B, D), (a_state(2), a_state(5)), (a_state(8), a_state(11))

    @jax.jit
    def results():
        given: dict[str, Any] = dict(mask=MASK, reset=RESET)
        parts = [both.forward, both.backward]
        alone = [m(x, s, initial=i, **given) for m, s, i in zip(parts, states, begins, strict=True)]
        return both(x, states, initial=begins, **given), alone

    (final, h), ((final_0, h_0), (final_1, h_1)) = results()
    assert_equal(h, np.concatenate([h_0, h_1], axis=-1))
    assert_equal(final, (final_0, final_1))
    assert both.output_size == h.shape[-1] == 2 * H
    assert both.backward.reverse
    assert not np.allclose(both.forward.w_x[...], both.backward.w_x[...])
    # Forwards the last valid instant is read last, backwards the first one.
    found = both.last(h, MASK)
    for row, last in enumerate([6, 4, 0]):
        assert_equal(found[row], np.concatenate([h_0[last, row], h_1[0, row]]))
    assert not np.any(both.last(jnp.ones_like(h), MASK)[3])
    assert_equal(both.last(h), np.concatenate([h_0[-1], h_1[0]], axis=-1))


# Stacks. ------------------------------------------------------------------------------------------


def mixed_layers() -> list[Recurrent]:
    """Layers of different cells and widths."""
    return [layer_of(0), layer_of(1, cells.GRU(H + 1), H), layer_of(2, cells.RNN(H), H + 1)]


def test_a_stack_is_the_composition_of_its_layers() -> None:
    layers = mixed_layers()
    stack, x = Stack(layers), draw(1, T, B, D)
    states = tuple(a_state(10 * n, layer.cell) for n, layer in enumerate(layers))
    begins = tuple(a_state(10 * n + 5, layer.cell) for n, layer in enumerate(layers))

    @jax.jit
    def results():
        h, finals = x, []
        for layer, state, initial in zip(layers, states, begins, strict=True):
            final, h = layer(h, state, initial=initial, mask=MASK, reset=RESET)
            finals.append(final)
        return stack(x, states, initial=begins, mask=MASK, reset=RESET), (tuple(finals), h)

    found, expected = results()
    assert_equal(found, expected)
    assert stack.output_size == H


def test_splitting_a_stack_in_time_changes_nothing() -> None:
    stack, x = Stack(mixed_layers()), draw(1, T, B, D)

    @jax.jit
    def results():
        k = 3
        state, head = stack(x[:k], mask=MASK[:k], reset=RESET[:k])
        final, tail = stack(x[k:], state, mask=MASK[k:], reset=RESET[k:])
        return stack(x, mask=MASK, reset=RESET), (final, jnp.concatenate([head, tail]))

    whole, parts = results()
    assert_equal(parts, whole)


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


ALL = Rates(0.5, 0.5, 0.5, 0.5)
ZONED = cells.Zoneout(CELL, {"h": 0.3, "c": 0.2})


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


# Sequence models. ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_readout_is_that_of_each_sequence_alone(bidirectional: bool) -> None:
    spec = spec_of(bidirectional=bidirectional, depth=1 if bidirectional else 2)
    params, x = params_of(spec), draw(1, T, B, D)
    lengths = [T, 3, 1, 0]
    mask = flags(*(list(range(length)) for length in lengths))
    together = jax.jit(lambda x: spec.apply(params, x, mask=mask))(x)
    assert together.shape == (B, V)
    for row, length in enumerate(lengths):
        alone = jax.jit(spec.apply)(params, x[:length, row : row + 1])
        assert_equal(together[row : row + 1], alone)
    assert_equal(together[3], params["head"]["bias"])


def test_padding_leaves_outputs_and_gradients_as_they_were_and_empty_rows_without_nan() -> None:
    spec = spec_of(depth=2, learn_initial=True)
    params, x = params_of(spec), draw(1, T, B, D)
    rubbish = jnp.where(MASK[..., None], x, 1e3)

    @jax.jit
    def value_and_grads(x):
        def total(params, x):
            y = spec.apply(params, x, mask=MASK)
            return jnp.sum(y * draw(2, B, V))

        return jax.value_and_grad(total, (0, 1))(params, x)

    found, expected = value_and_grads(rubbish), value_and_grads(x)
    assert_equal(found, expected)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
    d_x = np.asarray(found[1][1])
    assert not np.any(d_x[~VALID])
    assert np.all(np.abs(d_x[VALID]).max(axis=-1) > 0)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_output_depends_on_its_own_row_and_on_the_past_unless_bidirectional(
    bidirectional: bool,
) -> None:
    depth = 1 if bidirectional else 2
    spec = spec_of(readout="every", depth=depth, bidirectional=bidirectional)
    params, x = params_of(spec), draw(1, T, B, D)
    jacobian = jax.jit(jax.jacrev(lambda x: spec.apply(params, x)))(x)  # [T, B, V, T, B, D]
    size = np.abs(jacobian).sum(axis=(2, 5)).transpose(1, 3, 0, 2)  # [B out, B in, T out, T in]
    for row in range(B):
        for other in range(B):
            past = np.ones((T, T), bool) if bidirectional else np.tri(T, dtype=bool)
            reached = past if row == other else np.zeros((T, T), bool)
            np.testing.assert_array_equal(size[row, other] > 0, reached)


def test_an_embedding_is_a_dense_front_on_one_hot_symbols() -> None:
    symbols = jnp.asarray(np.random.default_rng(0).integers(0, D, (T, B)), jnp.int32)
    embed, dense = (spec_of(front=front, front_width=4) for front in ("embed", "dense"))
    params = params_of(embed)
    table = params["front"]["embedding"]
    front = {"kernel": table, "bias": jnp.zeros(4)}

    @jax.jit
    def results():
        one_hot = jax.nn.one_hot(symbols, D)
        return embed.apply(params, symbols), dense.apply({**params, "front": front}, one_hot)

    found, expected = results()
    assert_equal(found, expected)
    assert table.shape == (D, 4)
    assert np.std(found[:, 0]) > 0


def test_a_tied_head_is_a_dense_one_with_the_table_of_the_embedding() -> None:
    both = dict(front="embed", front_width=H, output_size=D, readout="every")
    dense, tied = spec_of(**both), spec_of(**both, tied=True)
    params, x = params_of(tied), jnp.asarray([[0, 2], [1, 1], [2, 0]], jnp.int32)
    table, bias = params["front"]["embedding"], params["head"]["bias"]
    assert params["head"].keys() == {"bias"}
    apart = {**params, "head": {"kernel": table.T, "bias": bias}}
    y, pull = jax.vjp(lambda p: tied.apply(p, x), params)
    expected, pull_apart = jax.vjp(lambda p: dense.apply(p, x), apart)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    (found,), (parts,) = pull(y), pull_apart(y)
    one = parts["front"]["embedding"] + parts["head"]["kernel"].T
    np.testing.assert_allclose(found["front"]["embedding"], one, rtol=1e-5)
    np.testing.assert_allclose(found["head"]["bias"], parts["head"]["bias"], rtol=1e-5)


def test_reset_begins_a_new_sequence_in_both_directions() -> None:
    spec = spec_of(readout="every", bidirectional=True)
    params, x = params_of(spec), draw(1, T, B, D)
    reset = flags([3], [3], [3], [3])

    @jax.jit
    def results():
        parts = spec.apply(params, x[:3]), spec.apply(params, x[3:])
        return spec.apply(params, x, reset=reset), jnp.concatenate(parts)

    packed, apart = results()
    assert_equal(packed, apart)


# What learning sees. ------------------------------------------------------------------------------

# Draws that compile in no time.
SIMPLE: dict[str, Any] = dict(
    w_x=initializers.identity(0.5),
    w_h=initializers.identity(0.5),
    b=initializers.torch_uniform_bias(),
)


def test_a_spec_is_its_value() -> None:
    def make(**changes):
        return spec_of(
            b=initializers.gate_bias(f=2.0), w_x=initializers.torch_uniform(H), **changes
        )

    traces = []

    def count(spec, x):
        traces.append(spec)
        return x

    for spec in (make(), make(dtype=jnp.float32), make(engine=ENGINE)):
        assert spec == make()
        assert hash(spec) == hash(make())
        jax.jit(count, static_argnums=0)(spec, 1.0)
    assert len(traces) == 1
    changes = dict(
        cell=cells.LSTM(H + 1), input_size=4, output_size=3, readout="every", depth=2,
        bidirectional=True, w_h=initializers.orthogonal(), learn_initial=True,
        engine=lj.engines.Reference(), dtype="bfloat16",
    )  # fmt: skip
    different = [make(**{name: value}) for name, value in changes.items()]
    assert len({make(), *different, make(front="dense", front_width=3)}) == len(changes) + 2


def test_gradients_through_a_batch_of_trials_are_those_of_each_alone() -> None:
    spec = spec_of(cell=ZONED, **SIMPLE)
    x = draw(1, T, B, D)
    start = {
        "scale": jnp.array([0.5, 1.0, 2.0]),
        "gate_bias": {"f": jnp.array([-1.0, 0.0, 3.0]), "o": jnp.array([1.0, 0.0, -1.0])},
    }
    rates = Rates(
        zoneout={"h": jnp.array([0.0, 0.2, 0.4])},
        dropout=jnp.array([0.0, 0.3, 0.6]),
        input_dropout=jnp.array([0.0, 0.1, 0.2]),
        recurrent_dropout=jnp.array([0.3, 0.0, 0.3]),
        weight_drop=jnp.array([0.3, 0.0, 0.5]),
    )
    keys = jax.random.split(jax.random.key(5), (3, 2))

    def one(trial, keys):
        start, rates = trial
        params = spec.init(keys[0], **start)

        def total(params):
            return jnp.sum(spec.apply(params, x, mask=MASK, rates=rates, key=keys[1]) ** 2)

        return params, jax.value_and_grad(total)(params)

    trials = start, rates
    together = jax.jit(jax.vmap(one))(trials, keys)
    alone, together = jax.jit(one), jax.device_get(together)
    for r in range(3):
        expected = alone(jax.tree.map(lambda a, r=r: np.asarray(a)[r], trials), keys[r])
        assert_equal(jax.tree.map(lambda a, r=r: a[r], together), expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(together[1][0])) == 3


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


@pytest.mark.parametrize("front", ["dense", "embed"])
def test_init_scale_multiplies_every_weight_and_no_bias(front) -> None:
    spec = spec_of(
        front=front, front_width=4, learn_initial=True, **SIMPLE,
    )  # fmt: skip
    plain, doubled = (drawn(spec, scale=scale) for scale in (1.0, 2.0))
    assert_equal(plain, drawn(spec))
    weights = {"kernel", "embedding", "w_x", "w_h"}
    seen = set()
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(doubled), strict=True
    ):
        name = path[-1].key
        seen.add(name)
        assert_equal(new, old * (2.0 if name in weights else 1.0))
        assert name in weights | {"bias", "b", "h", "c"}
        assert np.any(np.asarray(old)) == (name in weights | {"b"})
    assert {"w_x", "w_h", "b", "kernel"} < seen


def test_gate_bias_sets_its_block_in_every_layer_whatever_the_initialiser_says() -> None:
    spec = spec_of(depth=2, bidirectional=True, **SIMPLE)
    plain = drawn(spec)
    params = drawn(spec, gate_bias={"i": -3.0})
    for layer, before in zip(params["stack"]["layers"], plain["stack"]["layers"], strict=True):
        for direction in ("forward", "backward"):
            expected = np.array(before[direction]["b"]).reshape(4, H)
            assert np.any(expected[0] != -3.0)
            expected[0] = -3.0
            assert_equal(layer[direction]["b"].reshape(4, H), expected)
    with pytest.raises(ValueError, match="b and gate_bias name gates, got z"):
        spec.init(jax.random.key(0), gate_bias={"z": 1.0})


def test_zoneout_of_a_trial_takes_the_place_of_the_cells_own_in_every_layer() -> None:
    """With a key and without; a state that the trial does not name keeps the cell's own rate."""
    other = cells.Zoneout(CELL, {**dict(ZONED.rates), "h": 0.6})
    spec, want = (spec_of(cell=c, depth=2, bidirectional=True, **SIMPLE) for c in (ZONED, other))
    params, x, trial = params_of(spec), draw(1, T, B, D), Rates(zoneout={"h": jnp.float32(0.6)})
    for key in (None, jax.random.key(1)):
        given = jax.jit(spec.apply)(params, x, rates=trial, key=key)
        own = jax.jit(want.apply)(params, x, key=key)
        np.testing.assert_allclose(given, own, rtol=1e-6)
    for cell in (CELL, cells.Zoneout(CELL, {"c": 0.1})):
        other = spec_of(cell=cell)
        with pytest.raises(ValueError, match=r"zoneout names state 'h', for which .* no rate"):
            other.apply(params_of(other), x, rates=Rates(zoneout={"h": 0.5}))


def test_parameters_depend_on_the_key_and_on_the_layer() -> None:
    spec = spec_of(depth=2, w_x=initializers.identity())
    one, again, other = (drawn(spec, seed) for seed in (0, 0, 1))
    assert_equal(one, again, atol=0.0)
    layers = one["stack"]["layers"]
    assert not np.allclose(layers[0]["w_h"], layers[1]["w_h"])
    assert not np.allclose(layers[0]["w_h"], other["stack"]["layers"][0]["w_h"])
    assert not np.allclose(one["head"]["kernel"], other["head"]["kernel"])


def test_float64_is_exact_and_bfloat16_rough(x64: None) -> None:
    x = draw(1, T, B, D)
    exact, single, rough = (
        spec_of(cell=ZONED, dtype=dtype, depth=2) for dtype in ("float64", "float32", "bfloat16")
    )
    params = params_of(exact)
    key = jax.random.key(1)
    trial = Rates(**{name: jnp.float32(0.5) for name in Rates._fields if name != "zoneout"})

    def apply(spec):
        same = jax.tree.map(lambda a: a.astype(spec.stored_dtype), params)
        y = jax.jit(spec.apply)(same, x, mask=MASK)
        assert y.dtype == spec.dtype
        noisy = jax.eval_shape(lambda: spec.apply(same, x, mask=MASK, rates=trial, key=key))
        assert noisy.dtype == spec.dtype
        return np.asarray(y, np.float64)

    for spec in (exact, single, rough):
        made = jax.eval_shape(spec.init, key)
        assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {spec.stored_dtype}
    truth = apply(exact)
    error = np.abs(apply(single) - truth).max()
    assert 0 < error < 1e-6
    assert np.abs(apply(rough) - truth).max() < 0.03 * np.abs(truth).max()


def test_no_instants_and_no_rows_are_read_as_zeros() -> None:
    x = draw(1, T, B, D)
    for bidirectional in (False, True):
        spec = spec_of(bidirectional=bidirectional)
        params = params_of(spec)
        y = jax.jit(spec.apply)(params, x[:0], mask=MASK[:0])
        assert_equal(y, np.tile(params["head"]["bias"], (B, 1)))
        assert jax.eval_shape(spec.apply, params, x[:, :0]).shape == (0, V)
    every = jax.eval_shape(spec_of(readout="every").apply, params_of(spec_of()), x[:0])
    assert every.shape == (0, B, V)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(depth=0), ValueError, "depth must be an integer of at least 1, got 0"),
        (dict(depth=True), ValueError, "depth must be an integer of at least 1, got True"),
        (dict(input_size=-1), ValueError, "input_size must be an integer of at least 1, got -1"),
        (
            dict(output_size=2.5),
            ValueError,
            "output_size must be an integer of at least 1, got 2.5",
        ),
        (
            dict(readout="first"),
            ValueError,
            "readout must be one of None, last, every, got",
        ),
        (dict(front="conv"), ValueError, "front must be one of None, dense, embed, got"),
        (dict(front="dense"), ValueError, "front_width must be an integer of at least 1, got None"),
        (dict(front_width=3), ValueError, "front_width must be None without a front, got 3"),
        (dict(dtype="int32"), TypeError, "dtype must be a floating one, got int32"),
        (dict(tied=True), ValueError, "front must be 'embed' for tied=True, got None"),
        (
            dict(tied=True, front="embed", front_width=H),
            ValueError,
            "output_size must be input_size, 3, for tied=True, got 2",
        ),
    ],
)
def test_a_bad_spec_is_refused_by_name(change, error, message: str) -> None:
    with pytest.raises(error, match=message):
        spec_of(**change)


@pytest.mark.parametrize("given", [{}, {"projection": 2}, {"bidirectional": True}])
def test_a_tied_embedding_is_as_wide_as_the_outputs(given) -> None:
    spec = spec_of(tied=True, front="embed", front_width=4, output_size=D, **given)
    width = 2 if "projection" in given else 2 * H if given else H
    words = f"front_width must be {width}, the width of the outputs of the layers, for tied=True"
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(spec.init, KEY)


@pytest.mark.parametrize(
    ("change", "x", "error", "message"),
    [
        ({}, jnp.zeros((T, B)), ValueError, r"x must be \[T, B, D\], time first, with D = 3, got"),
        ({}, jnp.zeros((T, B, D + 1)), ValueError, r"with D = 3, got shape \(7, 4, 4\)"),
        ({}, jnp.zeros((T, B, D), int), TypeError, "x must be floats .*, got int32"),
        (
            "embed",
            jnp.zeros((T, B)),
            TypeError,
            "x must be integers for front='embed', got float32",
        ),
        ("embed", jnp.zeros((T, B, 1), int), ValueError, r"x must be symbols \[T, B\], time first"),
    ],
)
def test_a_bad_input_is_refused_by_name(change, x, error, message: str) -> None:
    spec = spec_of(front="embed", front_width=4) if change else spec_of()
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda: spec.apply(spec.init(jax.random.key(0)), x))


def test_a_bad_mask_or_state_and_a_stack_of_nothing_are_refused_by_name() -> None:
    layer, x = layer_of(0), draw(1, T, B, D)
    with pytest.raises(ValueError, match=r"mask must have shape \[T, B\] = \(7, 4\), got \(4, 7\)"):
        layer(x, mask=jnp.zeros((B, T), bool))
    with pytest.raises(TypeError, match=r"state must be LSTMState\(h, c\)"):
        layer(x, a_state(0, cells.GRU(H)))
    with pytest.raises(ValueError, match="layers must hold at least one layer"):
        Stack([])
    with pytest.raises(ValueError, match="readout must be one of"):
        SequenceModel(None, Stack([layer]), nnx.Linear(H, V, rngs=nnx.Rngs(0)), "first")  # pyright: ignore


def test_a_model_says_which_engine_it_has_on_another_platform():
    spec = SequenceSpec(cells.LSTM(8), 3, 2)
    assert spec.on("tpu").engine == lj.engines.resolve("auto", spec.cell, "tpu")
    assert spec.on("tpu") != spec.on("cpu")
    named = dataclasses.replace(spec, engine=lj.engines.Reference())
    assert named.on("tpu") == named
