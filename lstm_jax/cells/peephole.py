"""The LSTM with peepholes, and the variants of Greff et al. (2017)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import tanh

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell
from lstm_jax.checks import check_choice

ACTIVATIONS = {"tanh": tanh, "identity": lambda x: x}
FORGET_GATES = ("learned", "one", "coupled")

ODYSSEY: Mapping[str, Mapping[str, Any]] = {
    "vanilla": {},
    "NIG": {"input_gate": False},
    "NFG": {"forget_gate": "one"},
    "NOG": {"output_gate": False},
    "NIAF": {"input_activation": "identity"},
    "NOAF": {"output_activation": "identity"},
    "CIFG": {"forget_gate": "coupled"},
    "NP": {"peepholes": False},
    "FGR": {"gate_recurrence": True},
}


@dataclasses.dataclass(frozen=True)
class PeepholeLSTM(Cell):
    """The LSTM with peepholes, vectors p from c to the gates; fields remove parts.

        a = x w_x + h w_h + b                     for each of i, f, g, o
        i = sigmoid(a_i + p_i * c)                gates, in [0, 1]
        f = sigmoid(a_f + p_f * c)
        g = tanh(a_g)                             block input, in [-1, 1]
        c' = f * c + i * g                        cell state, in [-clip, clip] with `clip`
        o = sigmoid(a_o + p_o * c')
        h' = o * tanh(c')                         hidden state

    With `gate_recurrence` the gates i, f, o are also states, and a_i, a_f, a_o read them: nine more
    weight matrices.

    Attributes:
      peepholes: whether the gates read the cell state; False: p = 0.
      input_gate: False: i = 1.
      forget_gate: "learned"; "one": f = 1; "coupled": f = 1 - i.
      output_gate: False: o = 1.
      input_activation: of g, "tanh" or "identity".
      output_activation: of c', "tanh" or "identity".
      gate_recurrence: whether the gates read the gates of the previous time step.
      clip: bound of |c'|; c' is clipped before its use; None: no bound.

    Raises:
      ValueError: a choice is unknown, the forget gate is coupled to an input gate of 1, or the clip
        is not positive.

    Source: Gers & Schmidhuber 2000, the peepholes; Greff et al. 2017, the form and its variants;
    Sak et al. 2014, the clipped cell.
    """

    peepholes: bool = True
    input_gate: bool = True
    forget_gate: str = "learned"
    output_gate: bool = True
    input_activation: str = "tanh"
    output_activation: str = "tanh"
    gate_recurrence: bool = False
    clip: float | None = None

    def __post_init__(self):
        check_choice("forget_gate", self.forget_gate, FORGET_GATES)
        check_choice("input_activation", self.input_activation, ACTIVATIONS)
        check_choice("output_activation", self.output_activation, ACTIVATIONS)
        if self.forget_gate == "coupled" and not self.input_gate:
            raise ValueError("forget_gate='coupled' needs an input gate, got input_gate=False")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, or None, got {self.clip!r}")
        super().__post_init__()

    @property
    def gates(self):
        """The blocks i, f, g, o that the variant has."""
        learned = {"i": self.input_gate, "f": self.forget_gate == "learned", "o": self.output_gate}
        return tuple(name for name in ("i", "f", "g", "o") if learned.get(name, True))

    @property
    def selectors(self) -> tuple[str, ...]:
        """The gates proper: every block but g."""
        return tuple(name for name in self.gates if name != "g")

    @property
    def states(self):
        """The states h and c, and the gates where they are fed back."""
        return ("h", "c", *self.selectors) if self.gate_recurrence else ("h", "c")

    @property
    def bias(self):
        """The initial biases: the forget gate starts open, a coupled input gate closed."""
        if self.forget_gate == "coupled":
            return {"i": -1.0}
        return {"f": 1.0} if self.forget_gate == "learned" else {}

    @property
    def ranges(self):
        """The intervals of the gates, and of values that a tanh or the clip bounds."""
        bounded = {"g": self.input_activation, "h": self.output_activation}
        tanhs = {name: (-1, 1) for name, activation in bounded.items() if activation == "tanh"}
        clipped = {} if self.clip is None else {"c": (-self.clip, self.clip)}
        return dict.fromkeys(self.selectors, (0, 1)) | tanhs | clipped

    def init_theta(self, key):
        """Returns the peepholes, normal with standard deviation 0.1."""
        if not self.peepholes:
            return {}
        names = [f"p_{name}" for name in self.selectors]
        vectors = 0.1 * jax.random.normal(key, (len(names), self.hidden))
        return dict(zip(names, vectors, strict=True))

    def feedback(self, state):
        """Returns h, followed by the gates where they are fed back."""
        if not self.gate_recurrence:
            return state.h
        return (state.h, *(getattr(state, name) for name in self.selectors))

    def wiring(self, name):
        """Returns a mask for g, which reads h only; None without gate recurrence."""
        if not self.gate_recurrence or name != "g":
            return None
        F = self.hidden * (1 + len(self.selectors))
        return np.repeat(np.arange(F)[:, None] < self.hidden, self.hidden, axis=1)

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""

        def gate(name, c):
            a = getattr(gates, name)
            return sigmoid(a + getattr(theta, f"p_{name}") * c if self.peepholes else a)

        i = gate("i", state.c) if self.input_gate else 1.0
        f = 1 - i if self.forget_gate == "coupled" else 1.0
        f = gate("f", state.c) if self.forget_gate == "learned" else f
        g = ACTIVATIONS[self.input_activation](gates.g)
        c = f * state.c + i * g
        c = c if self.clip is None else jnp.clip(c, -self.clip, self.clip)
        o = gate("o", c) if self.output_gate else 1.0
        h = o * ACTIVATIONS[self.output_activation](c)
        opened = {name: dict(i=i, f=f, o=o)[name] for name in self.selectors}
        recurrent = opened if self.gate_recurrence else {}
        return state._replace(h=h, c=c, **recurrent), gates._replace(g=g, **opened)


def odyssey(variant: str, hidden: int) -> PeepholeLSTM:
    """Returns one of the nine LSTM variants of Greff et al. by name.

    Args:
      variant: "vanilla"; without input, forget or output gate "NIG", "NFG", "NOG"; without input or
        output activation "NIAF", "NOAF"; coupled gates "CIFG"; no peepholes "NP"; full gate
        recurrence "FGR".
      hidden: H.

    Raises:
      ValueError: the name is unknown.

    Source: Greff et al. 2017.
    """
    check_choice("variant", variant, ODYSSEY)
    return PeepholeLSTM(hidden, **ODYSSEY[variant])
