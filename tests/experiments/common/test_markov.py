"""Hidden Markov models of bits: sequences, the exact model, EM, and the bound of log2 K bits."""

import itertools
import sys

import jax
import numpy as np
import pytest

from experiments.common import markov
from experiments.common.markov import Model
from lstm_jax.tasks import Bits


def drawn(states: int, seed: int, sharp: float = 0.3) -> Model:
    """A random model; with a small `sharp` nearly a machine."""
    draw = np.random.default_rng(seed)
    start, *rows = draw.dirichlet(np.full(states, sharp), 1 + states)
    return Model(start, np.array(rows), draw.dirichlet(np.full(4, sharp), states))


def likelihood(model: Model, sequence) -> float:
    """P(sequence) as a sum over all paths of states."""
    total = 0.0
    for path in itertools.product(range(len(model.start)), repeat=len(sequence)):
        p = model.start[path[0]] * model.emission[path[0], sequence[0]]
        for (a, b), symbol in zip(itertools.pairwise(path), sequence[1:], strict=True):
            p *= model.transition[a, b] * model.emission[b, symbol]
        total += p
    return total


def test_sequences_are_what_the_task_draws():
    task = Bits(2, 3)
    batch = jax.tree.map(np.asarray, jax.jit(lambda k: task.sample(k, 400))(jax.random.key(0)))
    seen = set()
    for row in range(400):
        steps = int(batch.mask[:, row].sum())
        seen.add((*batch.x[:steps, row].argmax(-1).tolist(), int(batch.y[steps - 1, row])))
    mine = [tuple(sequence.tolist()) for sequence in markov.sequences(2, 3)]
    assert seen == set(mine) and len(mine) == len(seen) == 4 * 3


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_model_by_hand_is_never_wrong(count):
    model = markov.exact(count)
    assert len(model.start) == markov.states_needed(count) == 5 * 2**count - 4
    for rows in model:
        np.testing.assert_allclose(rows.sum(-1), 1)
    assert markov.recall(model, count, 4) == (1.0, 1.0, count)


def test_recall_is_the_filtered_prediction_by_enumeration():
    model, count, gap = drawn(2, 0, sharp=1.0), 2, 2
    told = []
    for sequence in markov.sequences(count, gap):
        past = len(sequence) - count
        for t in range(past, len(sequence)):
            both = [likelihood(model, [*sequence[:t], bit]) for bit in (0, 1)]
            told.append(both[sequence[t]] / sum(both))
    told = np.array(told).reshape(-1, count)
    recall = markov.recall(model, count, gap)
    np.testing.assert_allclose(recall.accuracy, np.mean(told > 0.5))
    np.testing.assert_allclose(recall.probability, np.mean(told.prod(1)))
    np.testing.assert_allclose(recall.bits, count + np.mean(np.log2(told).sum(1)))


@pytest.mark.parametrize("states", [1, 2, 3, 5, 8])
def test_no_model_recalls_more_than_the_logarithm_of_its_states(states):
    assert 2 ** markov.most_bits(states) == pytest.approx(states)
    for seed in range(20):
        recall = markov.recall(drawn(states, seed), 3, 2)
        assert recall.bits <= markov.most_bits(states) + 1e-9
        assert recall.probability <= states / 2**3 + 1e-9


def test_a_guess_is_half_right():
    model = Model(np.ones(1), np.ones((1, 1)), np.full((1, 4), 0.25))
    assert markov.recall(model, 3, 2) == pytest.approx((0.5, 1 / 8, 0.0))


def test_em_climbs_and_comes_to_the_same_again():
    pytest.importorskip("hmmlearn")
    one, again = (markov.learn(12, 1, 3, 60, seed=2) for _ in range(2))
    short = markov.learn(12, 1, 3, 2, seed=2)
    assert one.log_likelihood == again.log_likelihood > short.log_likelihood
    assert one.iterations > short.iterations == 2
    for rows, same in zip(one.model, again.model, strict=True):
        np.testing.assert_array_equal(rows, same)
        np.testing.assert_allclose(rows.sum(-1), 1)
    seen = markov.sequences(1, 3)
    best = -len(seen) * np.log(len(seen))  # of the distribution itself
    assert one.log_likelihood < best


def test_em_finds_one_bit_from_some_start():
    pytest.importorskip("hmmlearn")
    learnt = [markov.learn(16, 1, 1, 200, seed) for seed in range(8)]
    best = max(learnt, key=lambda one: one.log_likelihood)
    assert markov.recall(best.model, 1, 1).bits > 0.99


def test_without_hmmlearn_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "hmmlearn", None)
    with pytest.raises(ImportError, match="need hmmlearn: pip install hmmlearn"):
        markov.learn(2, 1, 1, 1, 0)
