"""Sequences through whole models: one instant at a time, in parts, projected, checked."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lstm_jax as lj
from lstm_jax import cells
from lstm_jax.nn import Bidirectional, Recurrent, SequenceModel, Stack, initializers
from tests.nn.small_models import (
    CELL,
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
    layer_of,
    params_of,
    spec_of,
)  # fmt: skip

P = 2
FRONTS: dict[str, dict[str, Any]] = {
    "none": dict(projection=P),
    "dense": dict(front="dense", front_width=4, cell=cells.GRU(H)),
    "embed": dict(front="embed", front_width=4),
}


def model_of(front: str) -> tuple[lj.nn.SequenceSpec, Any, Any]:
    """A model of two layers with learned initial states, its parameters, and an input."""
    spec = spec_of(readout="every", depth=2, learn_initial=True, **FRONTS[front])
    symbols = np.random.default_rng(0).integers(0, D, (T, B))
    x = jnp.asarray(symbols, jnp.int32) if front == "embed" else draw(1, T, B, D)
    return spec, params_of(spec), x


# One instant at a time. ---------------------------------------------------------------------------


@pytest.mark.parametrize("front", FRONTS)
def test_streaming_is_the_unrolled_model_at_every_instant(front: str) -> None:
    """And its "last" readout at the last, with masks, and resets to learned or given states."""
    spec, params, x = model_of(front)
    given = tuple(a_state(n, spec.cell) for n in range(2))

    @jax.jit
    def results(params):
        def streamed(initial):
            def instant(state, now):
                x_t, mask_t, reset_t = now
                return spec.stream(
                    params, state, x_t, initial=initial, mask_t=mask_t, reset_t=reset_t
                )

            return jax.lax.scan(instant, spec.initial_state(params, B), (x, MASK, RESET))

        def unrolled(initial):
            start = None if initial is None else spec.initial_state(params, B)
            return spec.unroll(params, x, start, initial=initial, mask=MASK, reset=RESET)

        last = dataclasses.replace(spec, readout="last").apply(params, x, mask=MASK, reset=RESET)
        return [(streamed(i), unrolled(i)) for i in (None, given)], last

    both, last = results(params)
    for found, expected in both:
        assert_equal(found, expected)
    assert np.abs(both[0][0][1] - both[1][0][1]).max() > 1e-2
    (_, y), _ = both[0]
    for row, t in enumerate([6, 4, 0]):
        assert_equal(y[t, row], last[row])


def test_modules_stream_as_the_functions_do() -> None:
    spec, params, x = model_of("dense")
    model = spec.module(params)
    state, y = model.stream(model.initial_state(B), x[0])
    assert_equal((state, y), spec.stream(params, spec.initial_state(params, B), x[0]))
    assert_equal(model(x[:1])[0], y)
    assert_equal(model.unroll(x[:1]), (state, y[None]))


def test_what_reads_backwards_is_refused_by_name_with_what_to_do() -> None:
    reverse = layer_of(0, reverse=True)
    both = Bidirectional(CELL, D, rngs=nnx.Rngs(0), w_h=initializers.glorot())
    x_t, state = draw(0, B, D), a_state(0)
    for layer, start, words in (
        (reverse, state, "a reversed Recurrent layer .* whole sequences, or .* reverse=False"),
        (both, (state, state), "a Bidirectional layer .* whole sequences, or use Recurrent"),
    ):
        stack = Stack([layer])
        model = SequenceModel(None, stack, nnx.Linear(layer.output_size, V, rngs=nnx.Rngs(0)))
        for refused in (
            lambda layer=layer: layer.initial_state(B),
            lambda layer=layer, start=start: layer.step(start, x_t),
            lambda model=model: model.initial_state(B),
            lambda model=model, start=start: model.stream((start,), x_t),
        ):
            with pytest.raises(ValueError, match=words):
                refused()
    spec = spec_of(bidirectional=True)
    with pytest.raises(ValueError, match="a Bidirectional layer reads the last time step first"):
        spec.initial_state(params_of(spec), B)


@pytest.mark.parametrize(
    ("front", "x_t", "error", "message"),
    [
        ("none", draw(0, B), ValueError, r"x_t must be \[B, D\], with D = 3, got shape \(4,\)"),
        ("none", draw(0, B, D + 1), ValueError, r"with D = 3, got shape \(4, 4\)"),
        ("embed", jnp.zeros((B, 1), int), ValueError, r"x_t must be symbols \[B\], got shape"),
        ("embed", draw(0, B), TypeError, "x_t must be integers for front='embed', got float32"),
    ],
)
def test_a_bad_instant_is_refused_by_name(front: str, x_t: Any, error, message: str) -> None:
    spec, params, _ = model_of(front)
    with pytest.raises(error, match=message):
        spec.stream(params, spec.initial_state(params, B), x_t)


# In parts. ----------------------------------------------------------------------------------------


def test_splitting_a_sequence_through_a_model_anywhere_changes_nothing() -> None:
    spec, params, x = model_of("none")
    weights = draw(9, T, B, V)

    @jax.jit
    def results(params):
        def parts(params, *cuts):
            state, outputs = None, []
            for a, z in zip((0, *cuts), (*cuts, T), strict=True):
                state, y = spec.unroll(params, x[a:z], state, mask=MASK[a:z], reset=RESET[a:z])
                outputs.append(y)
            y = jnp.concatenate(outputs)
            return jnp.sum(y * weights), (state, y)

        whole, split = (jax.grad(lambda p, c=c: parts(p, *c), has_aux=True)(params)
                        for c in ((), (0, 2, 3)))  # fmt: skip
        return whole, split, spec.apply(params, x, mask=MASK, reset=RESET)

    whole, split, applied = results(params)
    assert_equal(whole[1][1], applied)
    assert_equal(split, whole, atol=5e-6)


def test_the_last_readout_of_the_last_part_is_that_of_the_whole() -> None:
    """For rows that have a valid instant in it; the others are read as zeros."""
    spec, params, x = model_of("none")
    spec = dataclasses.replace(spec, readout="last")

    @jax.jit
    def results(params):
        given: dict[str, Any] = dict(mask=MASK, reset=RESET)
        state, _ = spec.unroll(params, x[:3], **{k: v[:3] for k, v in given.items()})
        part = spec.unroll(params, x[3:], state, **{k: v[3:] for k, v in given.items()})
        return part, spec.unroll(params, x, **given)

    (state, part), (expected_state, whole) = results(params)
    assert_equal(state, expected_state)
    assert VALID[3:].any(axis=0).tolist() == [True, True, False, False]
    assert_equal(part[:2], whole[:2])
    assert_equal(part[2:], np.tile(params["head"]["bias"], (2, 1)))


# Projected. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_a_projected_layer_is_a_layer_of_the_product_with_projected_outputs(reverse: bool) -> None:
    layer = layer_of(0, projection=P, reverse=reverse)
    plain = layer_of(0, reverse=reverse)
    low, high = layer.params.w_h
    plain.w_h[...] = low @ high
    assert (low.shape, high.shape, layer.output_size) == ((H, P), (P, 4 * H), P)
    x, state, initial = draw(1, T, B, D), a_state(2), a_state(5)

    @jax.jit
    def results():
        given: dict[str, Any] = dict(initial=initial, mask=MASK, reset=RESET)
        return layer(x, state, **given), plain(x, state, **given)

    (final, r), (expected, h) = results()
    assert_equal(final, expected)
    assert_equal(r, h @ low)
    assert_equal(layer.last(r, MASK), plain.last(h, MASK) @ low)
    assert not np.any(r[~VALID])


def test_both_factors_start_orthogonal_and_other_weights_as_without_them() -> None:
    key = jax.random.key(0)
    params, plain = (lj.init(CELL, key, D, projection=p) for p in (P, None))
    low, high = params.w_h
    assert_equal(low.T @ low, np.eye(P))
    for block in jnp.split(high, 4, axis=1):
        assert_equal(block @ block.T, np.eye(P))
    assert not np.allclose(low, high[:, :H].T)
    assert_equal(params._replace(w_h=()), plain._replace(w_h=()), atol=0.0)


def test_a_wrapped_cell_is_projected_as_the_cell_within() -> None:
    plain, zoned = cells.LSTM(H), cells.Zoneout(cells.LSTM(H), {"h": 0.1})
    key = jax.random.key(0)
    want = lj.init(plain, key, D, w_h=initializers.glorot(), projection=P)
    got = lj.init(zoned, key, D, w_h=initializers.glorot(), projection=P)
    jax.tree.map(assert_equal, got._replace(theta=()), want._replace(theta=()))


def test_a_projection_that_cannot_be_is_refused_by_name() -> None:
    for wrong in (0, True, 2.0):
        message = f"projection must be an integer of at least 1, got {wrong}"
        with pytest.raises(ValueError, match=message):
            layer_of(0, projection=wrong)
        with pytest.raises(ValueError, match=message):
            spec_of(projection=wrong)
    with pytest.raises(ValueError, match=f"projection must be less than H = {H}, got {H}"):
        layer_of(0, projection=H)
    for cell in (cells.MemoryBlocks(4), cells.odyssey("FGR", H)):
        with pytest.raises(ValueError, match=f"projection must be None for {type(cell).__name__}"):
            Recurrent(cell, D, rngs=nnx.Rngs(0), w_h=initializers.glorot(), projection=P)


# Checked. -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WrongGate(cells.LSTM):
    """An LSTM that forgets the sigmoid of its forget gate; its cell state may run away."""

    def update(self, gates, state, theta):
        new, activated = super().update(gates, state, theta)
        c = new.c + (gates.f - activated.f) * state.c
        return new._replace(c=c), activated._replace(f=gates.f)


def test_a_wrong_gate_deep_in_a_stack_is_caught_inside_a_compiled_training_step() -> None:
    """And what is checked has the same outputs and gradients as what is not."""
    x = draw(1, T, B, D)

    def step_of(spec):
        def step(params):
            def loss(params):
                return jnp.sum(spec.apply(params, x, mask=MASK, reset=RESET) ** 2)

            value, grads = jax.value_and_grad(loss)(params)
            return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

        return jax.jit(step)

    good = spec_of(depth=2)
    params = params_of(good)
    checked = dataclasses.replace(good, checked=True)
    found = chex.chexify(step_of(checked), async_check=False)(params)
    assert_equal(found, step_of(good)(params), atol=1e-5)

    def caught(cell, stacked):
        spec = dataclasses.replace(checked, cell=cell)
        with pytest.raises(AssertionError, match=stacked):
            chex.chexify(step_of(spec), async_check=False)(params)

    caught(WrongGate(H), r"WrongGate\.f leaves its range \[0, 1\]")
    with pytest.raises(RuntimeError, match="chexify"):  # never unchecked in silence
        step_of(checked)(params)
