"""Initialisers of weights and biases, by block.

An initialiser is a callable frozen dataclass. Two with the same settings are equal and have equal
hashes, so a compiled function can be cached by them.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, check_is_cell, feedback_width, initial_state, mask_params
from lstm_jax.checks import check_is, check_key, check_size
from lstm_jax.types import Array, CellParams, RecurrentWeights, wide

WeightInit = Callable[..., Array]  # (key, shape, dtype) -> array
BiasInit = Callable[..., Mapping[str, Array]]  # (key, cell, dtype) -> block -> vector


@dataclasses.dataclass(frozen=True)
class glorot:
    """Weights uniform with variance 2 / (rows + columns) of the block.

    Source: Glorot & Bengio 2010.
    """

    def __call__(self, key: Array, shape: tuple[int, int], dtype=jnp.float32) -> Array:
        """Returns a block [rows, columns] of weights."""
        return jax.nn.initializers.glorot_uniform()(key, shape, dtype)


@dataclasses.dataclass(frozen=True)
class orthogonal:
    """Weights `scale` times orthonormal rows and columns.

    If the block is not square, only the vectors of the shorter side are orthonormal.

    Source: Saxe, McClelland & Ganguli 2014.
    """

    scale: float = 1.0

    def __call__(self, key: Array, shape: tuple[int, int], dtype=jnp.float32) -> Array:
        """Returns a block [rows, columns] of weights, made in float32 at least."""
        draw = jax.nn.initializers.orthogonal(self.scale)
        return draw(key, shape, wide(dtype)).astype(dtype)


@dataclasses.dataclass(frozen=True)
class normal:
    """Normal weights with mean 0 and a standard deviation independent of the width.

    Attributes:
      deviation: the standard deviation; 0.1 is that of Greff et al. 2017.
    """

    deviation: float = 0.1

    def __call__(self, key: Array, shape: tuple[int, int], dtype=jnp.float32) -> Array:
        """Returns a block [rows, columns] of weights."""
        return jnp.asarray(self.deviation, dtype) * jax.random.normal(key, shape, dtype)


@dataclasses.dataclass(frozen=True)
class identity:
    """Weights `scale` times the identity, as for the recurrent block of an IRNN.

    Source: Le, Jaitly & Hinton 2015.
    """

    scale: float = 1.0

    def __call__(self, key: Array, shape: tuple[int, int], dtype=jnp.float32) -> Array:
        """Returns a block [rows, columns] of weights; the key is not used."""
        del key
        return jnp.eye(*shape, dtype=dtype) * jnp.asarray(self.scale, dtype)


@dataclasses.dataclass(frozen=True)
class torch_uniform:
    """Weights from U(-1/sqrt(H), 1/sqrt(H)) for blocks of any shape, as in torch.

    Attributes:
      hidden: H, the width of the cell.

    Raises:
      ValueError: hidden is not positive.
    """

    hidden: int

    def __post_init__(self):
        check_size("hidden", self.hidden)

    def __call__(self, key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        """Returns a block [rows, columns] of weights."""
        bound = self.hidden**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)


@dataclasses.dataclass(frozen=True)
class torch_uniform_bias:
    """Biases from U(-1/sqrt(H), 1/sqrt(H)) for every block.

    torch adds two such biases to a block that reads both input and state; this library has one.
    """

    def __call__(self, key: Array, cell: Cell, dtype=jnp.float32) -> dict[str, Array]:
        """Returns the bias [width] of every block of the cell."""
        draw, keys = torch_uniform(cell.hidden), jax.random.split(key, len(cell.gates))
        return {g: draw(k, (cell.width(g),), dtype) for k, g in zip(keys, cell.gates, strict=True)}


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class gate_bias:
    """Biases constant within a block: `gate_bias(f=1.0)` is a forget bias of one.

    Source: Gers et al. 2000 and Jozefowicz et al. 2015 for the forget bias; Hochreiter &
    Schmidhuber 1997 for negative biases of input and output gates.
    """

    values: tuple[tuple[str, float], ...]

    def __init__(self, **values: float):
        object.__setattr__(self, "values", tuple(sorted(values.items())))

    def __repr__(self) -> str:
        return f"gate_bias({', '.join(f'{block}={value}' for block, value in self.values)})"

    def __call__(self, key: Array, cell: Cell, dtype=jnp.float32) -> dict[str, Array]:
        """Returns the bias [width] of every named block; the key is not used."""
        del key
        return {g: jnp.full((cell.width(g),), value, dtype) for g, value in self.values}


@dataclasses.dataclass(frozen=True)
class chrono:
    """Biases that spread the time scales of the units up to `max_lag` time steps.

        b_forget ~ log U[1, max_lag - 1]      time scale of about 1 + exp(b_forget) time steps
        b_input = -b_forget                   input gate = 1 - forget gate

    Attributes:
      max_lag: the longest lag in time steps; at least 2.
      forget: the forget gate: "f" of the LSTM, "z" of the GRU.
      input: the input gate; None for cells without one, such as the GRU.

    Raises:
      ValueError: max_lag is below 2.

    Source: Tallec & Ollivier 2018, section 2.
    """

    max_lag: float
    forget: str = "f"
    input: str | None = "i"

    def __post_init__(self):
        if not self.max_lag >= 2:
            raise ValueError(f"max_lag must be at least 2 time steps, got {self.max_lag!r}")

    def __call__(self, key: Array, cell: Cell, dtype=jnp.float32) -> dict[str, Array]:
        """Returns the biases [width] of the forget gate and of the input gate."""
        shape = (cell.width(self.forget),)
        b_f = jnp.log(jax.random.uniform(key, shape, dtype, 1, self.max_lag - 1))
        return {self.forget: b_f} if self.input is None else {self.forget: b_f, self.input: -b_f}


@dataclasses.dataclass(frozen=True)
class uniform_gate:
    """Biases for which the initial forget gate is uniform in [0, 1] over the units.

        b_keep = logit(u), u ~ U[1/H, 1 - 1/H]
        b_refine = -b_keep

    Attributes:
      keep: the forget gate.
      refine: the refine gate; None for cells without one.

    Source: Gu et al. 2020, section 3.
    """

    keep: str = "f"
    refine: str | None = "r"

    def __call__(self, key: Array, cell: Cell, dtype=jnp.float32) -> dict[str, Array]:
        """Returns the biases [width] of the forget gate and of the refine gate."""
        width = cell.width(self.keep)
        u = jax.random.uniform(key, (width,), dtype, 1 / width, 1 - 1 / width)
        b = jnp.log(u) - jnp.log1p(-u)
        return {self.keep: b} if self.refine is None else {self.keep: b, self.refine: -b}


def init(
    cell: Cell,
    key: Array,
    input_size: int,
    *,
    w_x: WeightInit | None = None,
    w_h: WeightInit | None = None,
    b: BiasInit | None = None,
    projection: int | None = None,
    dtype=jnp.float32,
) -> CellParams:
    """Returns the initial parameters of one layer of `cell`.

    Args:
      cell: the recurrent cell.
      key: a PRNG key.
      input_size: D, the width of the input.
      w_x: initialiser of each input block [D, width]; `glorot()` by default.
      w_h: initialiser of each recurrent block [H, width]; `orthogonal()` by default.
      b: biases by block; a block it does not name starts at `cell.bias`, or zero.
      projection: p, to make `w_h` a pair (P [H, p], U [p, blocks]), both drawn by `w_h`.
      dtype: dtype of every parameter.

    Raises:
      ValueError: `input_size` is negative or no integer, `b` names a block that the cell does not
        have, or `projection` is no integer in [1, H) or the cell feeds back more than h; TypeError:
        `cell` is no cell, `key` is no key, or an initialiser is no function.
    """
    check_is_cell(cell)
    check_size("input_size", input_size, 0)
    check_key(key)
    check_initializers(w_x=w_x, w_h=w_h, b=b)
    x_key, h_key, b_key, theta_key = jax.random.split(key, 4)
    theta = {n: jnp.asarray(v, dtype) for n, v in cell.init_theta(theta_key).items()}
    params = CellParams(
        w_x=_blocks(cell, cell.x_blocks, x_key, input_size, w_x or glorot(), dtype),
        w_h=_recurrent(cell, h_key, w_h or orthogonal(), projection, dtype),
        b=_biases(cell, b_key, b, dtype),
        theta=cell.Theta(theta),
    )
    return mask_params(cell, params)


def check_initializers(**given: WeightInit | BiasInit | None) -> None:
    """Raises TypeError for an initialiser that is no function."""
    right = "an initialiser, such as lj.initializers.orthogonal() or gate_bias(f=1.0)"
    for name, one in given.items():
        check_is(name, one, Callable | None, right)


def check_projection(cell: Cell, projection: int) -> None:
    """Raises ValueError unless 0 < projection < H."""
    check_size("projection", projection)
    if projection >= cell.hidden:
        raise ValueError(f"projection must be less than H = {cell.hidden}, got {projection}")


def _recurrent(cell, key, initializer, projection, dtype) -> RecurrentWeights:
    F = feedback_width(cell)
    if not cell.h_blocks and projection is None:
        return None
    if projection is None:
        return _blocks(cell, cell.h_blocks, key, F, initializer, dtype)
    check_projection(cell, projection)
    state = initial_state(cell)
    if not cell.output(state) is cell.feedback(state) is state.h:
        raise ValueError(f"projection must be None for {cell}: its feedback is not h alone")
    P_key, U_key = jax.random.split(key)
    U = _blocks(cell, cell.h_blocks, U_key, projection, initializer, dtype)
    return initializer(P_key, (F, projection), dtype), U


def _blocks(cell, blocks, key, size, initializer, dtype) -> Array:
    if not blocks or not size:
        return jnp.zeros((size, sum(cell.width(name) for name in blocks)), dtype)
    keys = jax.random.split(key, len(blocks))
    named = zip(keys, blocks, strict=True)
    return jnp.concatenate([initializer(k, (size, cell.width(n)), dtype) for k, n in named], axis=1)


def _biases(cell, key, b, dtype) -> Array:
    named = dict(b(key, cell, dtype)) if b else {}
    if unknown := set(named) - set(cell.gates):
        need = f"need some of {', '.join(cell.gates)} for {cell}"
        raise ValueError(f"b and gate_bias name gates, got {', '.join(sorted(unknown))}: {need}")
    parts = [
        jnp.broadcast_to(jnp.asarray(named.get(g, cell.bias.get(g, 0.0)), dtype), (cell.width(g),))
        for g in cell.gates
    ]
    return jnp.concatenate(parts)
