"""Search: spaces of hyperparameters, strategies, widths under one compilation, and sweeps."""

from lstm_jax.search import importance, plans, space, strategies, studies, sweeps, widths
from lstm_jax.search.groups import Group, continued, state_of, train
from lstm_jax.search.plans import METRICS, Candidate, Found, Search
from lstm_jax.search.space import Space, parse
from lstm_jax.search.strategies import STRATEGIES, Strategy
from lstm_jax.search.sweeps import Ranked, SweepResult, sweep

__all__ = [
    "METRICS",
    "STRATEGIES",
    "Candidate",
    "Found",
    "Group",
    "Ranked",
    "Search",
    "Space",
    "Strategy",
    "SweepResult",
    "continued",
    "importance",
    "parse",
    "plans",
    "space",
    "state_of",
    "strategies",
    "studies",
    "sweep",
    "sweeps",
    "train",
    "widths",
]
