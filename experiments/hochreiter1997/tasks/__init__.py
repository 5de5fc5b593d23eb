"""The problems of Hochreiter & Schmidhuber 1997."""

from experiments.hochreiter1997.tasks.adding import AddingOnline, MultiplyingOnline
from experiments.hochreiter1997.tasks.criterion import Criterion, CriterionTask
from experiments.hochreiter1997.tasks.lags import RandomLag, TwoStrings
from experiments.hochreiter1997.tasks.reber import ReberOnline
from experiments.hochreiter1997.tasks.temporal_order import TemporalOrder
from experiments.hochreiter1997.tasks.two_sequences import TwoSequences

__all__ = [
    "AddingOnline",
    "Criterion",
    "CriterionTask",
    "MultiplyingOnline",
    "RandomLag",
    "ReberOnline",
    "TemporalOrder",
    "TwoSequences",
    "TwoStrings",
]
