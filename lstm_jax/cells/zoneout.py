"""Zoneout: units hold their previous value at random."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cells.base import Cell, check_is_cell
from lstm_jax.checks import check_is


def zoneout_name(state: str) -> str:
    """Returns the name in theta of the rate that overrides the cell's own."""
    return f"zoneout_{state}"


def _of_the_cell(name: str) -> Any:
    """Returns a property of `Zoneout`: the attribute or method of its wrapped cell."""
    return property(lambda self: getattr(self.cell, name))


@dataclasses.dataclass(frozen=True)
class Zoneout(Cell):
    """A wrapped cell in which units hold their previous value at random.

        s' = d * s + (1 - d) * update(s)          with draws: d = 1 with probability `rate`, else 0
        s' = rate * s + (1 - rate) * update(s)    without draws: the expectation

    Draws are independent across units, states, rows and time steps. States without a rate always
    take the new value. A rate is a hyperparameter, not a parameter: it has no gradient. For a
    traced rate, as in a search over rates, `theta.zoneout_h` overrides the cell's own. All other
    properties are those of the wrapped cell: the state of an LSTM with zoneout is an `LSTMState`.

    Attributes:
      cell: the wrapped cell.
      rates: state -> rate in [0, 1), such as `{"h": 0.05, "c": 0.5}`; stored as pairs.

    Raises:
      ValueError: `rates` names a state that the cell does not have, or a rate is out of its range;
        TypeError: the wrapped cell is itself a Zoneout, or `rates` is no dictionary.

    Source: Krueger et al. 2017, section 3.
    """

    hidden: int = dataclasses.field(init=False, repr=False)
    cell: Cell
    rates: Mapping[str, float] | tuple[tuple[str, float], ...]

    def __post_init__(self):
        check_is_cell(self.cell)
        if isinstance(self.cell, Zoneout):
            raise TypeError(f"cell must not be a Zoneout itself, got {self.cell}")
        right = "a dictionary of rates by state, such as {'h': 0.1}"
        check_is("rates", self.rates, Mapping | tuple, right)
        rates = dict(self.rates)
        for name, rate in rates.items():
            if name not in self.cell.states:
                raise ValueError(f"rates names state {name!r}; {self.cell} has {self.cell.states}")
            if not 0 <= rate < 1:
                raise ValueError(f"rates[{name!r}] must be in [0, 1), got {rate!r}")
        object.__setattr__(self, "rates", tuple(sorted(rates.items())))
        object.__setattr__(self, "hidden", self.cell.hidden)
        super().__post_init__()

    def update(self, gates, state, theta, draws=None):
        """Returns the next state and the activated gates of one row."""
        new, activated = self._update(gates, state, theta, draws)
        zoned = {}
        for name, own in self.rates:
            old, rate = getattr(state, name), _rate(theta, name, own)
            drawn = None if draws is None else getattr(draws, zoneout_name(name))
            zoned[name] = _mixed(old, getattr(new, name), rate, drawn)
        return new._replace(**zoned), activated

    def _update(self, gates, state, theta, draws):
        """Updates the wrapped cell with its own theta and draws."""
        update: Any = self.cell.update
        arguments = (gates, state, self.cell.Theta(self._own(theta)))
        if draws is None or not self.cell.noisy:
            return update(*arguments)
        return update(*arguments, self.cell.Draws(self._own(draws)))

    def draw(self, theta, key):
        """Returns 1 for units that hold their value, else 0; and the wrapped cell's draws.

        They are drawn in float32: bfloat16 is too coarse for small rates.
        """
        cell_key, *keys = jax.random.split(key, 1 + len(self.rates))
        draws = dict(self.cell.draw(self.cell.Theta(self._own(theta)), cell_key))
        for (state, own), key in zip(self.rates, keys, strict=True):
            name, size = zoneout_name(state), (self.cell.width(state),)
            rate = jnp.asarray(_rate(theta, state, own), jnp.float32)
            draws[name] = jax.random.bernoulli(key, rate, size).astype(jnp.float32)
        return draws

    def _own(self, row):
        """Returns the fields of theta or of draws that belong to the wrapped cell."""
        zoneout = {zoneout_name(name) for name, _ in self.rates}
        return {name: value for name, value in row._asdict().items() if name not in zoneout}

    def uniform(self):
        """Returns zoneout of the uniform wrapped cell; itself if a narrow state has a rate."""
        if any(self.cell.width(name) != self.hidden for name, _ in self.rates):
            return self
        return dataclasses.replace(self, cell=self.cell.uniform())

    # Members of the wrapped cell.
    gates = _of_the_cell("gates")
    states = _of_the_cell("states")
    reads = _of_the_cell("reads")
    bias = _of_the_cell("bias")
    unbiased = _of_the_cell("unbiased")
    ranges = _of_the_cell("ranges")
    Gates = _of_the_cell("Gates")
    State = _of_the_cell("State")
    widths = _of_the_cell("widths")
    wiring = _of_the_cell("wiring")
    output = _of_the_cell("output")
    feedback = _of_the_cell("feedback")
    init_theta = _of_the_cell("init_theta")


def _rate(theta, state, own):
    """Returns the rate of a state: from theta, else the cell's own."""
    return jax.lax.stop_gradient(getattr(theta, zoneout_name(state), own))


def _mixed(old, new, rate, drawn):
    """Returns old values where drawn, else new ones; without draws, the expectation."""
    if drawn is None:
        return rate * old + (1 - rate) * new
    return jnp.where(drawn > 0, old, new)
