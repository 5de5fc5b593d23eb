"""Laws of layers, stacks and sequence models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lstm_jax as lj
from lstm_jax import cells
from lstm_jax.nn import (
    Bidirectional,
    Recurrent,
    SequenceModel,
    Stack,
    initializers,
)
from lstm_jax.types import Array
from tests.nn.small_models import (
    CELL,
    ENGINE,
    MASK,
    RESET,
    VALID,
    B,
    D,
    H,
    T,
    V,
    a_state,
    assert_equal,
    draw,
    flags,
    layer_of,
    params_of,
    spec_of,
)


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
