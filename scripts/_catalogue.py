"""Cells to check and time: those of the catalogue, and three user-defined ones."""

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

from jax.nn import soft_sign, tanh

import lstm_jax as lj
from lstm_jax.cells import sigmoid

Make = Callable[[int], lj.Cell]  # of a width

CATALOGUE: dict[str, Make] = {  # by their names in docs/cells.md
    **{f"{kind.__name__}(H)": kind for kind in (lj.cells.LSTM, lj.cells.GRU, lj.cells.RNN)},
    **{f'odyssey("{v}", H)': functools.partial(lj.cells.odyssey, v) for v in lj.cells.ODYSSEY},
    "PeepholeLSTM(H, clip=3.0)": functools.partial(lj.cells.PeepholeLSTM, clip=3.0),
    "LayerNormLSTM(H)": lj.cells.LayerNormLSTM,
    "JANET(H)": lj.cells.JANET,
    "URLSTM(H)": lj.cells.URLSTM,
    "SLSTM(H)": lj.cells.SLSTM,
    "SLSTM(H, heads=2)": functools.partial(lj.cells.SLSTM, heads=2),
    "MinGRU(H)": lj.cells.MinGRU,
    "MinLSTM(H)": lj.cells.MinLSTM,
    "MemoryBlocks(H)": lj.cells.MemoryBlocks,
    "MemoryBlocks(H, size=2)": functools.partial(lj.cells.MemoryBlocks, size=2),
    'Zoneout(LSTM(H), {"h": 0.05, "c": 0.5})': lambda H: lj.cells.Zoneout(
        lj.cells.LSTM(H), {"h": 0.05, "c": 0.5}
    ),
}


@dataclasses.dataclass(frozen=True)
class Coupled(lj.Cell):
    """An LSTM whose input gate is 1 - f."""

    gates: ClassVar = ("f", "g", "o")
    states: ClassVar = ("h", "c")

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        f, g, o = sigmoid(gates.f), tanh(gates.g), sigmoid(gates.o)
        c = f * state.c + (1 - f) * g
        return state._replace(h=o * tanh(c), c=c), gates._replace(f=f, g=g, o=o)


@dataclasses.dataclass(frozen=True)
class Leaky(lj.Cell):
    """A tanh network whose leak is a gate."""

    gates: ClassVar = ("z", "g")

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        z, g = sigmoid(gates.z), tanh(gates.g)
        h = z * state.h + (1 - z) * g
        return state._replace(h=h), gates._replace(z=z, g=g)


@dataclasses.dataclass(frozen=True)
class Softsign(lj.Cell):
    """An LSTM with softsign in place of tanh."""

    gates: ClassVar = ("i", "f", "g", "o")
    states: ClassVar = ("h", "c")

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        i, f, o = sigmoid(gates.i), sigmoid(gates.f), sigmoid(gates.o)
        g = soft_sign(gates.g)
        c = f * state.c + i * g
        return state._replace(h=o * soft_sign(c), c=c), gates._replace(i=i, f=f, g=g, o=o)


OWN: dict[str, Make] = {"Coupled": Coupled, "Leaky": Leaky, "Softsign": Softsign}
