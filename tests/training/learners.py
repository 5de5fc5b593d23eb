"""The smallest learners, and trials told apart."""

import jax
import numpy as np

from lstm_jax.tasks import Recall
from tests.toys import Elman, Line, Slope

TASK, NETWORK = Recall(lag=3, symbols=4), Elman(5, 4)
LINE, SLOPE = Line(), Slope()


def pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def assert_same(one, other):
    """Bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, one, other)
