"""LSTMs and other recurrent cells for JAX.

A cell has the equations of one time step; the library runs the loop.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from lstm_jax import cells, engines, nn
from lstm_jax.cells import Cell, LinearCell, initial_state
from lstm_jax.engines import step, trace, unroll
from lstm_jax.nn import initializers
from lstm_jax.nn.initializers import init
from lstm_jax.types import Batch, CellParams, LSTMState, Model, Noise

if TYPE_CHECKING:
    from lstm_jax import (
        data,
        diagnostics,
        interop,
        linen,
        metrics,
        runs,
        search,
        tasks,
        testing,
        training,
    )
    from lstm_jax.data import packing
    from lstm_jax.interop import export
    from lstm_jax.runs import RunDirectory
    from lstm_jax.training.evaluation import evaluate
    from lstm_jax.training.fit import fit
    from lstm_jax.training.predictor import Predictor, load
    from lstm_jax.training.results import Result, result_records
    from lstm_jax.training.trials import Trials, make_trials

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
    "linen",
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

# The modules of the names above that are imported at their first use, as are the other rooms.
_MODULES = {
    "Predictor": "training.predictor",
    "Result": "training.results",
    "RunDirectory": "runs",
    "Trials": "training.trials",
    "evaluate": "training.evaluation",
    "export": "interop",
    "fit": "training.fit",
    "load": "training.predictor",
    "make_trials": "training.trials",
    "packing": "data",
    "result_records": "training.results",
}

if not TYPE_CHECKING:  # a type checker would take any name for an attribute

    def __getattr__(name: str):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name not in _MODULES:
            return import_module(f"{__name__}.{name}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
