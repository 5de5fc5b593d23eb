"""The plan of an experiment: groups of trials, and what is made of their records."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.common.flags import Config
from lstm_jax.report.claims import Claim
from lstm_jax.report.figures import Picture
from lstm_jax.report.ledger import Record
from lstm_jax.report.tables import Row
from lstm_jax.runs import RunDirectory
from lstm_jax.search import Group


class Computed(NamedTuple):
    """Results without a `fit`, as one group of a plan."""

    name: str  # unique within the experiment
    # returns a mapping for each result, and arrays to save as parameters. It always returns the
    # same, so that a resume can compute it again
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
      numbers: (config, table) -> a table of results.md below the claims; none by default.
      files: (config, records) -> name -> content of other files, such as MIDI; none by default.
      save: (config, run) writes a model into the directory of a run, in all processes; none by
        default.
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
    numbers: Callable[[Any, Sequence[Row]], Sequence[Row]] = lambda config, table: ()
    files: Callable[[Any, Sequence[Record]], Mapping[str, bytes]] = lambda config, records: {}
    save: Callable[[Any, RunDirectory], None] = lambda config, run: None
