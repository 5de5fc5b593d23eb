"""Zoneout: a cell whose units keep, now and then, the value they had."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cells.base import Cell


def zoneout_name(state: str) -> str:
    """Returns the name, in theta, of a rate that takes the place of the cell's own."""
    return f"zoneout_{state}"


@dataclasses.dataclass(frozen=True)
class Zoneout(Cell):
    """Any cell, of which each unit of a state may keep its old value for an instant.

        s' = d * s + (1 - d) * update(s)          drawn: d = 1 with probability `rate`, else 0
        s' = rate * s + (1 - rate) * update(s)    without draws: what is expected

    Units, states, rows and instants are drawn independently. A state that `rates` does not name
    always takes its new value. A rate is a hyperparameter, not a parameter: no optimiser sees it.
    For a traced rate, as a search over rates needs, `theta.zoneout_h` takes the place of the cell's
    own; it has no gradient. For the rest this is the cell within: the state of a zoned-out LSTM is
    an `LSTMState`.

    Attributes:
      cell: the cell within.
      rates: state -> rate in [0, 1), such as `{"h": 0.05, "c": 0.5}`; kept as pairs.

    Raises:
      ValueError: `rates` names a state that the cell does not have, or a rate is out of its range;
        TypeError: the cell within is a Zoneout itself.

    Source: Krueger et al. 2017, section 3.
    """

    hidden: int = dataclasses.field(init=False, repr=False)
    cell: Cell
    rates: Mapping[str, float] | tuple[tuple[str, float], ...]

    def __post_init__(self):
        if isinstance(self.cell, Zoneout):
            raise TypeError(f"cell must not be a Zoneout itself, got {self.cell}")
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
        """Updates the cell within, given what is its own."""
        update: Any = self.cell.update
        given = (gates, state, self.cell.Theta(self._own(theta)))
        if draws is None or not self.cell.noisy:
            return update(*given)
        return update(*given, self.cell.Draws(self._own(draws)))

    def draw(self, theta, key):
        """Returns 1 for each unit that keeps its value, else 0; and the draws of the cell within.

        Drawn in float32, whose grid is fine enough for any rate; that of bfloat16 is not.
        """
        within, *keys = jax.random.split(key, 1 + len(self.rates))
        found = dict(self.cell.draw(self.cell.Theta(self._own(theta)), within))
        for (state, own), key in zip(self.rates, keys, strict=True):
            name, size = zoneout_name(state), (self.cell.width(state),)
            rate = jnp.asarray(_rate(theta, state, own), jnp.float32)
            found[name] = jax.random.bernoulli(key, rate, size).astype(jnp.float32)
        return found

    def _own(self, row):
        """Returns what of theta, or of what was drawn, belongs to the cell within."""
        mine = {zoneout_name(name) for name, _ in self.rates}
        return {name: value for name, value in row._asdict().items() if name not in mine}

    def uniform(self):
        """Returns the uniform cell within, zoned out, unless a narrow state is: that is drawn."""
        if any(self.cell.width(name) != self.hidden for name, _ in self.rates):
            return self
        return dataclasses.replace(self, cell=self.cell.uniform())

    def init_theta(self, key):
        """Returns the small parameters of the cell within."""
        return self.cell.init_theta(key)

    # The words of the cell within. ----------------------------------------------------------------

    @property
    def gates(self):
        """The gates of the cell within."""
        return self.cell.gates

    @property
    def states(self):
        """The states of the cell within."""
        return self.cell.states

    @property
    def reads(self):
        """What the blocks of the cell within read."""
        return self.cell.reads

    @property
    def bias(self):
        """The initial biases of the cell within."""
        return self.cell.bias

    @property
    def unbiased(self):
        """The blocks without a bias of the cell within."""
        return self.cell.unbiased

    @property
    def ranges(self):
        """The intervals of the cell within: a mean of two values stays where they are."""
        return self.cell.ranges

    @property
    def Gates(self):
        """The type of the gates of the cell within."""
        return self.cell.Gates

    @property
    def State(self):
        """The type of the state of the cell within."""
        return self.cell.State

    def widths(self):
        """Returns the widths of the cell within."""
        return self.cell.widths()

    def wiring(self, name):
        """Returns the wiring of the cell within."""
        return self.cell.wiring(name)

    def output(self, state):
        """Returns the output of the cell within."""
        return self.cell.output(state)

    def feedback(self, state):
        """Returns the feedback of the cell within."""
        return self.cell.feedback(state)


def _rate(theta, state, own):
    """Returns the rate of a state: of theta where it has one, else the cell's own."""
    return jax.lax.stop_gradient(getattr(theta, zoneout_name(state), own))


def _mixed(old, new, rate, drawn):
    """Returns the old value of each unit that keeps it; without draws, what is expected."""
    if drawn is None:
        return rate * old + (1 - rate) * new
    return jnp.where(drawn > 0, old, new)
