"""LSTMs and other recurrent cells for JAX.

A cell has the equations of one time step; the library runs the loop.
"""

from lstm_jax import (
    cells,
    data,
    diagnostics,
    engines,
    interop,
    metrics,
    nn,
    runs,
    search,
    tasks,
    testing,
    training,
)
from lstm_jax.cells import Cell, LinearCell, initial_state
from lstm_jax.data import packing
from lstm_jax.engines import step, trace, unroll
from lstm_jax.interop import export
from lstm_jax.nn import initializers
from lstm_jax.nn.initializers import init
from lstm_jax.runs.directory import RunDirectory
from lstm_jax.training.evaluation import evaluate
from lstm_jax.training.fit import fit
from lstm_jax.training.predictor import Predictor, load
from lstm_jax.training.results import Result, result_records
from lstm_jax.training.trials import Trials, make_trials
from lstm_jax.types import Batch, CellParams, LSTMState, Model, Noise

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Cell",
    "CellParams",
    "LSTMState",
    "LinearCell",
    "Model",
    "Noise",
    "Predictor",
    "Result",
    "RunDirectory",
    "Trials",
    "cells",
    "data",
    "diagnostics",
    "engines",
    "evaluate",
    "export",
    "fit",
    "init",
    "initial_state",
    "initializers",
    "interop",
    "load",
    "make_trials",
    "metrics",
    "nn",
    "packing",
    "result_records",
    "runs",
    "search",
    "step",
    "tasks",
    "testing",
    "trace",
    "training",
    "unroll",
]
