"""Learning: a batch of training runs as one compiled program."""

from lstm_jax.training import evaluation, parallel
from lstm_jax.training.optimizers import DIRECTIONS
from lstm_jax.training.parallel import BATCHINGS
from lstm_jax.training.programs import footprint, fresh, lower, state_shapes
from lstm_jax.training.step import State
from lstm_jax.training.trials import MAX_SEED, Trials, initial, keys, make_trials

__all__ = [
    "BATCHINGS",
    "DIRECTIONS",
    "MAX_SEED",
    "State",
    "Trials",
    "evaluation",
    "footprint",
    "fresh",
    "initial",
    "keys",
    "lower",
    "make_trials",
    "parallel",
    "state_shapes",
]
