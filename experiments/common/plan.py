"""The plan of an experiment: groups of trials, and what is made of their records."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.common.flags import Config
from lstm_jax.report.claims import Claim
from lstm_jax.report.figures import Picture
from lstm_jax.report.ledger import Record
from lstm_jax.report.tables import Row
from lstm_jax.runs.checkpoints import load
from lstm_jax.runs.directory import RunDirectory
from lstm_jax.tasks import Task
from lstm_jax.training.fit import State, state_shapes
from lstm_jax.training.trials import Trials


class Group(NamedTuple):
    """Trials that train together in one compiled program.

    Attributes:
      name: unique within the experiment.
      task: the problem.
      model: the network, with `engine` and `on` besides, as `SequenceSpec` has them.
      steps: updates of a trial.
      batch_size: sequences of an update.
      trials: their hyperparameters; None while they depend on another group.
      split: "validation" or "test", for the evaluation at the end.
      sequences: evaluated sequences, where the task samples them.
      optimizer: by name.
      initial_state: (run directory) -> the initial state, in process 0 alone; None for the model's
        own.
      save_state: whether another group continues from the final states.
      labels: extra fields of the results, a mapping for each trial.
      measure: (trained parameters [R, ...], trials) -> extra fields of the results, a mapping for
        each trial.
      curve_points: of a learning curve.
      window: time steps of an update; None for the whole batch.
      measured: the tasks and sequences of one call of `measure`, for the estimate of memory.
    """

    name: str
    task: Task
    model: Any
    steps: int
    batch_size: int
    trials: Trials | None
    split: str
    sequences: int = 2000
    optimizer: str = "adam"
    initial_state: Callable[[RunDirectory], State] | None = None
    save_state: bool = False
    labels: Sequence[Record] = ()
    measure: Callable[[Any, Trials], Sequence[Record]] | None = None
    curve_points: int = 40
    window: int | None = None
    measured: Sequence[tuple[Task, int]] = ()


def state_of(group: Group) -> State:
    """Returns the shapes of the training state of a ready group."""
    assert group.trials is not None
    settings = {"batch_size": group.batch_size, "optimizer": group.optimizer}
    return state_shapes(group.task, group.model, group.trials, **settings)


def continued(before: Group, run: RunDirectory) -> State:
    """Returns the saved final states of an earlier group, as a start."""
    return load(run.state_path(before.name), state_of(before))


class Computed(NamedTuple):
    """Results without a `fit`, as one group of a plan.

    Attributes:
      name: unique within the experiment.
      compute: returns a mapping for each result, and arrays to save as parameters. It always
        returns the same, so that a resume can compute it again.
    """

    name: str
    compute: Callable[[], tuple[Sequence[Record], Any]]


class Experiment(NamedTuple):
    """A claim and its test; all functions are pure.

    Attributes:
      name: of its module.
      doc: its claim, command, cost and the number to expect.
      scales: quick, small and paper.
      plan: (config, records so far) -> all groups, in training order.
      summarise: (config, records) -> the table.
      draw: (config, table, records) -> the figures.
      adapt: (config of a new run) -> config with its machine-dependent fields set.
      every: (config, records) -> the lines of summary.csv; None for those of the table.
      columns: config -> the columns of `every` that are hyperparameters and metrics of
        TensorBoard's HParams tab; none by default.
      claims: (config, table) -> the claims with their verdicts; none by default.
    """

    name: str
    doc: str
    scales: Mapping[str, Config]
    plan: Callable[[Any, Sequence[Record]], Sequence[Group | Computed]]
    summarise: Callable[[Any, Sequence[Record]], Sequence[Row]]
    draw: Callable[[Any, Sequence[Row], Sequence[Record]], list[Picture]]
    adapt: Callable[[Any], Any] = lambda config: config
    every: Callable[[Any, Sequence[Record]], Sequence[Row]] | None = None
    columns: Callable[[Any], tuple[Sequence[str], Sequence[str]]] = lambda config: ((), ())
    claims: Callable[[Any, Sequence[Row]], Sequence[Claim]] = lambda config, table: ()
