"""Language models: symbols that are not in the vocabulary, and predictions without the text."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.data import Text
from lstm_jax.tasks import LanguageModel

TRAIN = "abcab" * 18
TASK = LanguageModel(Text(TRAIN + "abzab" + "abcab"), window=4)


def test_an_unseen_symbol_is_masked_as_an_input_and_counts_nowhere_as_a_target() -> None:
    batch = TASK.examples("validation")
    assert batch.y.T.tolist() == [[1, -1, 0, 1]]
    assert batch.x.T.tolist() == [[0, 1, 0, 0]]
    assert np.asarray(batch.mask).T.tolist() == [[True, True, False, True]]
    outputs = jax.random.normal(jax.random.key(0), (4, 1, 3))
    log_p = np.asarray(jax.nn.log_softmax(outputs))[:, 0]
    wanted = -(log_p[0, 1] + log_p[2, 0] + log_p[3, 1]) / 3
    np.testing.assert_allclose(TASK.loss(outputs, batch), wanted, rtol=1e-6)
    right = outputs[:, 0].argmax(-1) == batch.y[:, 0]
    np.testing.assert_allclose(TASK.metric(outputs, batch), np.sum(right) / 3, rtol=1e-6)
    gradient = jax.grad(lambda outputs: TASK.loss(outputs, batch))(outputs)
    assert not np.any(gradient[1]) and np.all(np.isfinite(gradient))


def test_windows_are_read_from_the_arrays_that_are_given() -> None:
    other = LanguageModel(Text("bcabc" * 18 + "abzab" + "abcab"), window=4)
    assert TASK.static == other.static and other != TASK
    again = LanguageModel(Text(TRAIN + "abzab" + "abcab"), window=4)
    assert again == TASK and hash(again) == hash(TASK)
    key = jax.random.key(1)
    cursor = TASK.static.begin(key, 2, arrays=other.arrays())
    given = TASK.static.next(cursor, other.arrays())[1]
    wanted = other.next(other.begin(key, 2))[1]
    jax.tree.map(np.testing.assert_array_equal, given, wanted)
    assert not np.array_equal(given.x, TASK.next(TASK.begin(key, 2))[1].x)


@pytest.mark.parametrize("level", ["char", "byte"])
def test_a_task_is_restored_without_its_text(level) -> None:
    task = LanguageModel(Text("Grüße an alle 世界 " * 10, level))
    description, arrays = task.state()
    again = LanguageModel.restore(json.loads(json.dumps(description)), arrays)
    assert again == task and again.static == task.static and again.chance == task.chance
    numbers = again.encode("Grüße 👋")
    np.testing.assert_array_equal(numbers["numbers"], task.encode("Grüße 👋")["numbers"])
    alle = again.encode("alle")
    x = again.batch(alle, jnp.arange(4)).x
    assert x.shape == (4, 1)
    assert all(block.arrays["numbers"][-1] == again.symbols for block in again.blocks(alle))
    assert again.vocabulary.decode(np.asarray(x)[:, 0]) == "alle"
