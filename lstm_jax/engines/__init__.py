"""The loop over time steps, and engines that compute it with equal results."""

from lstm_jax.engines.associative import Associative
from lstm_jax.engines.choice import ENGINES, Engine, resolve, serves
from lstm_jax.engines.loop import Trace, step, trace, unroll
from lstm_jax.engines.mosaic import Mosaic
from lstm_jax.engines.pallas import Pallas
from lstm_jax.engines.products import projected
from lstm_jax.engines.reference import Reference
from lstm_jax.engines.scan import Scan
from lstm_jax.engines.tiles import Tiles

__all__ = [
    "ENGINES",
    "Associative",
    "Engine",
    "Mosaic",
    "Pallas",
    "Reference",
    "Scan",
    "Tiles",
    "Trace",
    "projected",
    "resolve",
    "serves",
    "step",
    "trace",
    "unroll",
]
