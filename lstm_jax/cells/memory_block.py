"""The memory blocks of 1997, and those of 2000 with a forget gate."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import tanh

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell
from lstm_jax.checks import check_choice

BIASES = ("all", "gates", "none")
INPUTS = {"4s-2": lambda a: 2 * tanh(a / 2), "s": sigmoid}
OUTPUTS = {"2s-1": lambda c: tanh(c / 2), "identity": lambda c: c}


@dataclasses.dataclass(frozen=True)
class MemoryBlocks(Cell):
    """The LSTM of 1997, in which the cells of a block share gates.

        a = x w_x + [h, i, o] w_h + b             every gate and cell reads all outputs and gates
        i, o = sigmoid(a)                         gates, one each for a block of `size` cells
        g = 4 s - 2, s = sigmoid(a)               squashed cell input, in [-2, 2]
        c' = c + i * g                            cell state (constant error carousel)
        h' = o * (2 s - 1), s = sigmoid(c')       cell output, in [-1, 1]

    With `forget_gate` it is the extended LSTM of 2000: c' = f * c + i * g, f = sigmoid(a).

    Attributes:
      hidden: H, the number of cells in all blocks together.
      size: cells of one block.
      output_gate: False: o = 1.
      forget_gate: False: f = 1.
      recurrent: whether gates and cells read outputs and gates; False: only c is recurrent.
      gate_recurrence: whether they read the gates; False: they read the outputs only.
      biases: blocks with a bias: "all" gates and cells, the "gates" only, or "none".
      truncated: whether the gradient flows back through c only, as in the paper. Errors that leave
        a gate or a cell input change its weights but flow no further back.
      input_activation: of g, "4s-2" or "s", where s is the logistic function.
      output_activation: of c', "2s-1" or "identity".

    Raises:
      ValueError: `size` does not divide H, or a choice is unknown.

    Source: Hochreiter & Schmidhuber 1997, section 4 and appendix A.1; the other activations, its
    experiment 2a; Gers, Schmidhuber & Cummins 2000, the forget gate, without gate recurrence.
    """

    size: int = 1
    output_gate: bool = True
    recurrent: bool = True
    biases: str = "all"
    truncated: bool = False
    input_activation: str = "4s-2"
    output_activation: str = "2s-1"
    forget_gate: bool = False
    gate_recurrence: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.size < 1 or self.hidden % self.size:
            raise ValueError(f"size must divide hidden = {self.hidden}, got {self.size!r}")
        check_choice("biases", self.biases, BIASES)
        check_choice("input_activation", self.input_activation, INPUTS)
        check_choice("output_activation", self.output_activation, OUTPUTS)

    @property
    def gates(self):
        """The blocks among i, f, g, o that this variant has."""
        present = {"f": self.forget_gate, "o": self.output_gate}
        return tuple(name for name in ("i", "f", "g", "o") if present.get(name, True))

    @property
    def states(self):
        """The states h and c, and the gates where they are fed back."""
        return ("h", "c", *self._fed_back)

    @property
    def _fed_back(self) -> tuple[str, ...]:
        gates = tuple(g for g in self.gates if g != "g")
        return gates if self.recurrent and self.gate_recurrence else ()

    @property
    def reads(self):
        """The terms each gate reads: all, or the input only."""
        return {} if self.recurrent else dict.fromkeys(self.gates, "x")

    @property
    def unbiased(self):
        """The blocks without a bias."""
        return {"all": (), "gates": ("g",), "none": self.gates}[self.biases]

    @property
    def ranges(self):
        """The intervals of the gates, and of bounded activations."""
        g = (-2, 2) if self.input_activation == "4s-2" else (0, 1)
        opened = {name: (0, 1) for name in self.gates if name != "g"}
        squashed = {"h": (-1, 1)} if self.output_activation == "2s-1" else {}
        return {**opened, "g": g, **squashed}

    def widths(self):
        """Returns the number of blocks as the width of the gates."""
        return {name: self.hidden // self.size for name in self.gates if name != "g"}

    def uniform(self):
        """Returns blocks of one cell each, so that every cell has its own gates."""
        return dataclasses.replace(self, size=1)

    def feedback(self, state):
        """Returns the outputs of the cells and the gates; a constant where truncated."""
        fed_back = (state.h, *(getattr(state, name) for name in self._fed_back))
        return jax.lax.stop_gradient(fed_back) if self.truncated else fed_back

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        opened = {name: sigmoid(getattr(gates, name)) for name in self.gates if name != "g"}
        i, f, o = (self._shared(opened[n]) if n in opened else 1.0 for n in ("i", "f", "o"))
        g = INPUTS[self.input_activation](gates.g)
        c = f * state.c + i * g
        h = o * OUTPUTS[self.output_activation](c)
        recurrent = {name: opened[name] for name in self._fed_back}
        return state._replace(h=h, c=c, **recurrent), gates._replace(g=g, **opened)

    def _shared(self, gate):
        if self.size == 1:
            return gate
        return jnp.repeat(gate, self.size, total_repeat_length=self.hidden)
