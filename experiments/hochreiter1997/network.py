"""The networks of 1997: memory blocks and output units, with their published initialisation."""

import dataclasses
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import lax

import lstm_jax as lj
from lstm_jax.cells import (
    Cell,
    MemoryBlocks,
    initial_state,
    mask_params,
    memory_block,
    parameter_count,
    sigmoid,
)
from lstm_jax.engines import Engine, Scan, masking, products, resolve
from lstm_jax.types import Array, CellParams

WIDE = 32  # inputs
LONG = 4096  # time steps of one product for the gradients


@dataclasses.dataclass(frozen=True)
class Network1997:
    """A layer of cells and output units y = [x, h] w + b; x and b are optional.

    All weights and biases start uniform in [-start, start], except for given gate biases, one for
    each block. Gates and cells read all outputs and gates where the cell says so; the input reaches
    the outputs only by a `shortcut`.

    Source: Hochreiter & Schmidhuber 1997, section 4 and table 10.
    """

    cell: Cell  # the recurrent layer, memory blocks in the paper
    input_size: int  # D
    output_size: int  # V
    readout: Literal["last", "every"]  # "last" for outputs [B, V], "every" for [T, B, V]
    start: float  # the greatest initial weight
    input_biases: tuple[float, ...] = ()  # initial biases of the input gates; random if empty
    output_biases: tuple[float, ...] = ()  # the same of the output gates
    output_units_biased: bool = False  # whether the output units have biases
    shortcut: bool = False  # whether they read the input as well
    # whether they read the input only, before the cells are added to the network
    cells_wait: bool = False
    engine: str | Engine = "auto"  # runs the loop over time

    @property
    def weights(self) -> int:
        """Returns the number of weights and biases."""
        rows = self.cell.hidden + self.shortcut * self.input_size + self.output_units_biased
        return parameter_count(self.cell, self.input_size) + rows * self.output_size

    def on(self, platform: str) -> Self:
        """Returns the same network with the engine that "auto" selects on a platform.

        On a CPU with one sequence an update, one product of all inputs takes a half to a fifth of
        the time of a product at every time step if the inputs are wide.
        """
        engine = resolve(self.engine, self.cell, platform, jnp.float32)
        if (self.engine, platform) == ("auto", "cpu") and self.input_size > WIDE:
            engine = Scan("hoisted", chunk=LONG)
        return dataclasses.replace(self, engine=engine)

    def init(
        self, key: Array, *, scale: float | Array = 1.0, gate_bias: Any = None
    ) -> dict[str, Any]:
        """Returns the initial weights; `gate_bias` is of no effect."""
        del gate_bias
        start = self.start * scale

        def uniform(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -start, start)

        def biases(key, cell, dtype):
            named = {"i": self.input_biases, "o": self.output_biases}
            keys = dict(zip(cell.gates, jax.random.split(key, len(cell.gates)), strict=True))
            return {
                gate: jnp.asarray(named.get(gate) or uniform(k, (cell.width(gate),)), dtype)
                for gate, k in keys.items()
            }

        blocks_key, w_key, b_key = jax.random.split(key, 3)
        rows = self.cell.hidden + self.shortcut * self.input_size
        w = uniform(w_key, (rows, self.output_size))
        blocks = lj.init(self.cell, blocks_key, self.input_size, w_x=uniform, w_h=uniform, b=biases)
        params = {"blocks": blocks._asdict(), "w": w}
        return params | ({"b": uniform(b_key, w.shape[1:])} if self.output_units_biased else {})

    def apply(
        self,
        params: Any,
        x: Array,
        *,
        mask: Array | None = None,
        reset: Array | None = None,
        **_: Any,
    ) -> Array:
        """Returns the outputs before the squashing, [B, V] or [T, B, V]; there is no chance."""
        blocks = CellParams(**params["blocks"])
        final, h = lj.unroll(self.cell, blocks, x, mask=mask, reset=reset, engine=self.engine)
        if self.readout == "every":
            return self._outputs(params, x, h)
        return self._outputs(params, x[-1], final.h)  # held from each row's last step on

    def _outputs(self, params: Any, x: Array, h: Array) -> Array:
        """Returns the net inputs of the output units, from the cells' outputs [..., B, H]."""
        h = jnp.zeros_like(h) if self.cells_wait else h
        y = (jnp.concatenate([x, h], axis=-1) if self.shortcut else h) @ params["w"]
        return y + jnp.broadcast_to(params["b"], y.shape) if "b" in params else y


class Instant(NamedTuple):
    """The state of an `OnlineNetwork1997` between two time steps."""

    cell: Any  # the state of its blocks
    d_i: Array  # [B, N, H] derivative of every cell's c by the N weights of its input gate
    d_g: Array  # [B, N, H] the same by the weights of the cell itself


@dataclasses.dataclass(frozen=True)
class OnlineNetwork1997(Network1997):
    """`Network1997` with the truncated gradient of the whole past at every time step.

        d c'_v / d w_i = d c_v / d w_i + i' g_v u          u = [x, h, i, o, 1] of this time step
        d c'_v / d w_g = d c_v / d w_g + i g'_v u

    As in 1997, these derivatives go forwards in time with the state. `unroll` takes one time step.
    It adds a zero with these derivatives as its gradient to c. An update at each time step (`fit`
    with window=1) is then that of the paper.

    Source: Hochreiter & Schmidhuber 1997, appendix A.1, equations 21 to 24.
    """

    def initial_state(self, params: Any, batch: int) -> Instant:
        """Returns the state at the start of a sequence."""
        blocks, cell = CellParams(**params["blocks"]), self._blocks
        zeros = jnp.zeros((batch, len(self._weights(blocks)), cell.hidden))
        return Instant(initial_state(cell, (batch,)), zeros, zeros)

    def unroll(
        self,
        params: Any,
        x: Array,
        state: Instant,
        *,
        mask: Array | None = None,
        reset: Array | None = None,
        **_: Any,
    ) -> tuple[Instant, Array]:
        """Returns the state after one time step, x [1, B, D], and the outputs [1, B, V]."""
        assert len(x) == 1 and reset is None, "one time step within a sequence"
        cell, blocks = self._blocks, mask_params(self._blocks, CellParams(**params["blocks"]))
        w_i, w_g = (w - lax.stop_gradient(w) for w in self._columns(blocks))  # zero
        past = jnp.einsum("bnh,nh->bh", state.d_i, w_i) + jnp.einsum("bnh,nh->bh", state.d_g, w_g)
        start = state.cell._replace(c=state.cell.c + past)
        packed = products.preactivations(cell, blocks, x[0], products.fed_back(cell, start, None))
        after, _ = products.advance(cell, packed, start, blocks.theta, None)
        d_i, d_g = lax.stop_gradient(self._derivatives(blocks, x[0], state))
        new = Instant(after, state.d_i + d_i, state.d_g + d_g)
        new = masking.where_row(None if mask is None else mask[0], new, state)
        return new, self._outputs(params, x[0], after.h)[None]

    def _derivatives(self, blocks: CellParams, x: Array, state: Instant) -> tuple[Array, Array]:
        """Returns the additions of a time step to `d_i` and `d_g`."""
        cell, feedback = self._blocks, products.fed_back(self._blocks, state.cell, None)
        packed = products.preactivations(cell, blocks, x, feedback)
        gates = products.split(cell, tuple(cell.gates), packed)
        i = self._shared(sigmoid(gates["i"]))
        squash = memory_block.INPUTS[cell.input_activation]
        g, slope = jax.jvp(squash, (gates["g"],), (jnp.ones_like(gates["g"]),))
        u = [x, feedback] if cell.recurrent else [x]
        u = jnp.concatenate([*u, jnp.ones_like(x[:, :1])], axis=-1)[:, :, None]
        return u * (i * (1 - i) * g)[:, None], u * (i * slope)[:, None]

    def _columns(self, blocks: CellParams) -> tuple[Array, Array]:
        """Returns the weights [N, H] of every cell's input gate, and of every cell."""
        number = self._blocks.width("i")
        w = self._weights(blocks)
        return self._shared(w[:, :number]), w[:, number : number + self._blocks.hidden]

    def _weights(self, blocks: CellParams) -> Array:
        """Returns all weights of gates and cells [N, G], the biases last."""
        assert not isinstance(blocks.w_h, tuple)
        w_h = [blocks.w_h] if self._blocks.recurrent else []
        return jnp.concatenate([blocks.w_x, *w_h, blocks.b[None]])

    def _shared(self, gate: Array) -> Array:
        return jnp.repeat(gate, self._blocks.size, axis=-1)

    @property
    def _blocks(self) -> MemoryBlocks:
        assert isinstance(self.cell, MemoryBlocks)
        return self.cell
