"""The programs and initial states of training, without training."""

from typing import Any

import jax
import numpy as np

from lstm_jax.tasks.base import Task
from lstm_jax.training import agreement, feeds, optimizers, parallel
from lstm_jax.training.loop import Job, Lowered
from lstm_jax.training.step import Settings, State, Validated, begin, begin_with
from lstm_jax.training.trials import Trials, make_trials
from lstm_jax.types import Model


def lower(
    task: Task,
    model: Model,
    trials: Trials,
    devices: parallel.Devices,
    *,
    batch_size: int = 16,
    optimizer: optimizers.Optimizer = "adam",
    batching: str = "auto",
) -> Lowered:
    """Returns the programs of `fit` for `devices`, traced and lowered, not compiled.

    The devices may be absent, such as those of `jax.experimental.topologies`. "auto" batching
    resolves for these devices. A model's "auto" engine does not, see `SequenceSpec.on`.

    The devices are all of one platform. Of the trials only their number and their names matter.
    Other arguments are those of `fit`.

    Raises:
      ValueError: an argument is out of range.
    """
    return Job(task, model, trials, Settings(batch_size, optimizer, batching), devices).lower()


def fresh(
    task: Task, model: Model, params: Any, trials: Trials, *, batch_size: int = 16,
    optimizer: optimizers.Optimizer = "adam", epochs: bool = False,
) -> State:  # fmt: skip
    """Returns R trials before their first step with parameters [R, ...], for `begin_from` of `fit`.

    `epochs` says whether `fit` takes `epochs`, with a validation after each. Other arguments are
    those of `fit`.
    """
    agreement.check_kinds(task, model, trials)
    agreement.check_params(params, trials)
    settings, arrays = _settings(task, batch_size, optimizer, epochs), task.arrays()

    def begin_one(trial, one):
        return begin_with(task.static, model, settings, trial, one, arrays)

    return jax.tree.map(np.asarray, jax.vmap(begin_one)(trials, params))


def state_shapes(
    task: Task, model: Model, trials: Trials, *, batch_size: int = 16,
    optimizer: optimizers.Optimizer = "adam", epochs: bool = False,
) -> State:  # fmt: skip
    """Returns the shapes and dtypes of R trials' state, as a template for `checkpoints.load`."""
    settings = _settings(task, batch_size, optimizer, epochs)
    arrays = feeds.shapes(task.arrays())
    begin_all = jax.vmap(
        lambda trial, arrays: begin(task.static, model, settings, trial, arrays), (0, None)
    )
    return jax.eval_shape(begin_all, trials, arrays)


def _settings(
    task: Task, batch_size: int, optimizer: optimizers.Optimizer, epochs: bool
) -> Settings:
    """Returns settings with which a trial begins as with those of `fit`."""
    validated = Validated(1) if epochs and task.split_size("validation") else None
    return Settings(batch_size, optimizer, "map", epochs=epochs, validated=validated)


def footprint(
    task: Task, model: Model, *, batch_size: int = 16, optimizer: optimizers.Optimizer = "adam",
    batching: str = "auto", places: int = 1,
) -> int:  # fmt: skip
    """Returns the bytes that a device needs to train `places` trials, by the compiler's estimate.

    They are the arguments, results and temporaries of the compiled loop, which does not run. With
    map the temporaries are those of one trial.
    """
    trials = make_trials(seed=np.arange(places * jax.device_count()))
    settings = Settings(batch_size, optimizer, batching)
    planned = Job(task, model, trials, settings, jax.devices()).lower().run.compile()
    sizes: Any = planned.memory_analysis()
    return (
        sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )  # fmt: skip
