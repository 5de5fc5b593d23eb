"""Predictions of one trained network, or of several together."""

import dataclasses
from typing import Any

from lstm_jax.tasks.base import Task
from lstm_jax.training.trials import Trials
from lstm_jax.types import Model


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """Trained networks whose predictions are averaged.

    Attributes:
      task: the problem, which knows the units and names of inputs and answers.
      model: the network.
      params: parameters of the M networks, leaves [M, ...].
      trials: their M settings.
    """

    task: Task
    model: Model
    params: Any
    trials: Trials
