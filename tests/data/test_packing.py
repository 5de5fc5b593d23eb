"""Packed rows: every sequence is what it is alone, wherever first-fit puts it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import lstm_jax as lj
from lstm_jax.data.packing import pack, unpack
from lstm_jax.nn import Bidirectional, Recurrent, SequenceModel, Stack
from lstm_jax.tasks import Task
from tests.products import mostly_slow

D, H, V = 2, 3, 2
LENGTHS = (4, 1, 0, 6, 2, 3, 1)
ROOM = 7


def sequences(*shape: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(length, *shape)).astype(np.float32) for length in LENGTHS]


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12), spare=st.integers(0, 5))
def test_every_sequence_lies_whole_in_the_first_row_that_had_room(
    lengths: list[int], spare: int
) -> None:
    room = max(lengths) + spare
    packed = pack([n + np.arange(length) / 100 for n, length in enumerate(lengths)], room)
    ends = [0]
    for n, length in enumerate(lengths):  # first-fit, written out
        b = next((b for b, end in enumerate(ends) if end + length <= room), None)
        if b is None:
            ends.append(0)
            b = len(ends) - 1
        assert (packed.row[n], packed.start[n], packed.length[n]) == (b, ends[b], length)
        at = slice(ends[b], ends[b] + length)
        np.testing.assert_array_equal(packed.x[at, b], n + np.arange(length) / 100)
        assert packed.mask[at, b].all()
        assert packed.reset[at, b].tolist() == [t == 0 for t in range(length)]
        ends[b] += length
    assert packed.x.shape == packed.mask.shape == (room, len(ends))
    assert packed.mask.sum() == sum(lengths)
    assert packed.reset.sum() == sum(length > 0 for length in lengths)


def test_unpack_undoes_pack() -> None:
    inputs = sequences(D)
    packed = pack(inputs, ROOM)
    assert packed.x.shape[1] == 3  # rows of 4 1 2, 6 1 and 3
    values, mask = unpack(packed, jnp.where(packed.mask[..., None], packed.x, 9))
    for n, one in enumerate(inputs):
        np.testing.assert_array_equal(values[: len(one), n], one)
        assert not values[len(one) :, n].any()
        assert mask[:, n].tolist() == [t < len(one) for t in range(ROOM)]


@pytest.mark.parametrize("bidirectional", mostly_slow([False, True], [True]))
def test_packed_sequences_are_those_alone(bidirectional: bool) -> None:
    """Outputs, last outputs and gradients, through layers, stacks and models, projected too."""
    make = Bidirectional if bidirectional else Recurrent

    def layer(seed: int, width: int, projection: int | None = None):
        return make(
            lj.cells.LSTM(H), width, rngs=nnx.Rngs(seed), w_h=lj.initializers.glorot(),
            projection=projection, learn_initial=True, engine="reference",
        )  # fmt: skip

    low = layer(0, D, projection=2)
    stack = Stack([low, layer(1, low.output_size)])
    every = SequenceModel(
        None, stack, nnx.Linear(stack.output_size, V, rngs=nnx.Rngs(2)), readout="every"
    )
    inputs, weights = sequences(D), sequences(V)
    packed, weigh = pack(inputs, ROOM), pack(weights, ROOM)
    lengths = np.array(LENGTHS)
    alone: Any = np.zeros((ROOM, len(inputs), D), np.float32)
    for n, one in enumerate(inputs):
        alone[: len(one), n] = one
    graph, params = nnx.split(every)
    learned = iter(np.random.default_rng(1).normal(size=(99, H)).astype(np.float32))

    def stir(path, leaf):
        return jnp.asarray(next(learned)) if "initial" in jax.tree_util.keystr(path) else leaf

    params = jax.tree.map_with_path(stir, params)

    @jax.jit
    def results(params):
        def one_by_one(params):
            model, mask = nnx.merge(graph, params), jnp.arange(ROOM)[:, None] < lengths[None]
            _, h = model.stack(alone, mask=mask)
            y = jnp.where(mask[..., None], model(alone, mask=mask), 0)
            return jnp.sum(y * unpack(weigh, weigh.x)[0]), (y, model.stack.last(h, mask))

        def together(params):
            model = nnx.merge(graph, params)
            _, h = model.stack(packed.x, mask=packed.mask, reset=packed.reset)
            y = model(packed.x, mask=packed.mask, reset=packed.reset)
            last = model.stack.last(*unpack(packed, h))
            return jnp.sum(y * weigh.x), (unpack(packed, y)[0], last)

        each = (one_by_one, together)
        return [jax.grad(f, has_aux=True)(params) for f in each]

    expected, found = results(params)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
    y, last = found[1]
    assert np.abs(y[0]).min(axis=-1)[lengths > 0].min() > 0
    assert not last[lengths == 0].any() and np.abs(last[lengths > 0]).min() > 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([], "sequences must hold at least one"),
        (
            [np.zeros((2, 1)), np.zeros((8, 1))],
            r"\[1\] must have at most length=7 time steps, got 8",
        ),
        ([np.zeros((2, 1)), np.zeros((2, 2))], r"\[1\] must be float64 \(1,\) at .* \(2,\)"),
        (
            [np.zeros(2, np.float32), np.zeros(2)],
            r"\[1\] must be float32 \(\) at each time step, got fl",
        ),
    ],
)
def test_sequences_that_cannot_be_packed_are_refused_by_name(arrays, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(arrays, ROOM)


@pytest.mark.parametrize("shape", [(ROOM - 1, 3, D), (ROOM, 2, D), (3, ROOM, D), (ROOM,)])
def test_values_of_other_rows_are_not_unpacked(shape) -> None:
    packed = pack(sequences(D), ROOM)
    with pytest.raises(ValueError, match=r"values must be \[T, B, ...\] with T = 7 and B = 3, got"):
        unpack(packed, jnp.zeros(shape))


@dataclasses.dataclass(frozen=True)
class RunningSums(Task):
    """Put out the sum of the inputs so far, of sequences that share rows or have one each."""

    packed: bool

    name, readout, chance = "running sums", "every", 0.0
    input_size, output_size, length = D, D, ROOM

    def sample(self, key, batch_size, split="train"):
        inputs, sums = sequences(D), [x.cumsum(0) for x in sequences(D)]
        if self.packed:
            (x, mask, reset, *_), y = pack(inputs, ROOM), pack(sums, ROOM).x
        else:
            (x, y), reset = (lone(inputs), lone(sums)), None
            mask = np.arange(ROOM)[:, None] < np.array(LENGTHS)
        return lj.Batch(*jax.tree.map(jnp.asarray, (x, y, mask, reset)))

    def loss(self, outputs, batch):
        mask = jnp.asarray(batch.mask)[..., None]
        return jnp.sum(jnp.where(mask, outputs - batch.y, 0) ** 2) / sum(LENGTHS)

    def correct(self, outputs, batch):
        return jnp.zeros(outputs.shape[1])


def lone(arrays: list[np.ndarray]) -> np.ndarray:
    rows = np.zeros((ROOM, len(arrays), arrays[0].shape[1]), np.float32)
    for n, array in enumerate(arrays):
        rows[: len(array), n] = array
    return rows


def test_fit_learns_the_same_from_packed_rows(standard_promotion) -> None:
    spec = lj.nn.SequenceSpec(lj.cells.LSTM(H), D, D, readout="every", depth=2)
    trials = lj.make_trials(seed=[0, 1], learning_rate=0.1)
    packed, apart = (
        lj.fit(RunningSums(flag), spec, trials, 5, batch_size=rows, optimizer="sgd", progress=False)
        for flag, rows in ((True, pack(sequences(D), ROOM).x.shape[1]), (False, len(LENGTHS)))
    )
    np.testing.assert_allclose(packed.loss, apart.loss, rtol=1e-5)
    for one, other in zip(
        jax.tree.leaves(packed.params), jax.tree.leaves(apart.params), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
