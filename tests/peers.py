"""Recurrent layers of torch and ours on the same weights, and what is compared of them.

The loss is the sum of the outputs and of the final states, each entry times its own weight, so that
every output has a part in every gradient. Gradients are those of the other library's own tensors:
ours go through the import, which thereby is differentiated too.
"""

import itertools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lstm_jax as lj
from lstm_jax import interop


class Case(NamedTuple):
    """A torch module and what it is given; the proj_size 0 is none, as torch has it."""

    kind: str = "LSTM"
    T: int = 5
    B: int = 3
    D: int = 2
    H: int = 3
    depth: int = 2
    bidirectional: bool = True
    projection: int = 0
    nonlinearity: str = "tanh"
    bias: bool = True
    lengths: tuple[int, ...] | None = None

    @property
    def cell(self) -> lj.Cell:
        options = (self.nonlinearity,) if self.kind == "RNN" else ()
        return getattr(lj.cells, self.kind)(self.H, *options)

    @property
    def mask(self) -> Any:
        return None if self.lengths is None else np.arange(self.T)[:, None] < self.lengths


GOLDEN = {
    "lstm": Case(lengths=(5, 1, 3)),
    "projected": Case(projection=2, lengths=(5, 1, 3)),
    "gru": Case("GRU", lengths=(5, 1, 3)),
    "relu": Case("RNN", depth=1, bidirectional=False, nonlinearity="relu"),
}


class Results(NamedTuple):
    """Outputs [T, B, ...], final states [layers and directions, B, ...], and gradients."""

    h: Any
    final: Any
    d_tensors: Any
    d_x: Any
    d_state: Any


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def inputs(case: Case, dtype: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """An input, and states to start from; a projected h starts at zero, as ours must."""
    rows, widths = case.depth * (1 + case.bidirectional), [case.projection or case.H, case.H]
    shapes = [(rows, case.B, width) for width in widths[: len(case.cell.states)]]
    states = [numbers(1 + i, *shape).astype(dtype) for i, shape in enumerate(shapes)]
    states[0] *= not case.projection
    return numbers(0, case.T, case.B, case.D).astype(dtype), states


def weights(shapes: list[tuple[int, ...]], dtype: str) -> list[np.ndarray]:
    """What the loss multiplies results of these shapes with."""
    return [numbers(100 + i, *shape).astype(dtype) for i, shape in enumerate(shapes)]


def torch_module(torch: Any, case: Case, dtype: str) -> Any:
    options: dict[str, Any] = {"nonlinearity": case.nonlinearity} if case.kind == "RNN" else {}
    options |= {"proj_size": case.projection} if case.projection else {}
    torch.manual_seed(0)
    return getattr(torch.nn, case.kind)(
        case.D, case.H, case.depth, bias=case.bias, bidirectional=case.bidirectional,
        dtype=getattr(torch, dtype), **options,
    )  # fmt: skip


def theirs(torch: Any, case: Case, module: Any, dtype: str) -> Results:
    """Runs the torch module, on packed sequences where the case has lengths."""
    rnn = torch.nn.utils.rnn
    x, states = inputs(case, dtype)
    packed = x = torch.tensor(x, requires_grad=True)
    states = [torch.tensor(state, requires_grad=True) for state in states]
    if case.lengths:
        packed = rnn.pack_padded_sequence(x, case.lengths, enforce_sorted=False)
    with warnings.catch_warnings():  # of what torch runs projections with
        warnings.simplefilter("ignore")
        h, final = module(packed, tuple(states) if len(states) > 1 else states[0])
    if case.lengths:
        h, _ = rnn.pad_packed_sequence(h, total_length=case.T)
    final = list(final) if isinstance(final, tuple) else [final]
    results = [h, *final]
    each = zip(results, weights([tuple(r.shape) for r in results], dtype), strict=True)
    torch.stack([(r * torch.tensor(w)).sum() for r, w in each]).sum().backward()
    d_tensors = {name: tensor.grad.numpy() for name, tensor in module.named_parameters()}
    d_state = [s.grad.numpy() for s in states[bool(case.projection) :]]
    h, *final = (r.detach().numpy() for r in results)
    return Results(h, final, d_tensors, x.grad.numpy(), d_state)


def tensors_of(module: Any) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def ours(case: Case, tensors: dict[str, np.ndarray], dtype: str, engine="scan") -> Results:
    """Runs our layers with torch's tensors."""
    cell, mask = case.cell, case.mask
    x, states = inputs(case, dtype)

    def results(tensors, x, states):
        layers = interop.from_torch(cell, tensors)
        if case.projection:
            states = [jnp.zeros_like(states[1]), states[1]]
        rows = [cell.State(*row) for row in zip(*states, strict=True)]
        start = tuple(zip(rows[::2], rows[1::2], strict=True)) if case.bidirectional else (*rows,)
        finals, h = interop.as_stack(cell, layers, engine=engine)(x, start, mask=mask)
        finals = itertools.chain(*finals) if case.bidirectional else finals
        flat = zip(finals, itertools.chain(*layers), strict=True)
        final = [(s.h @ p.w_h[0] if case.projection else s.h, *s[1:]) for s, p in flat]
        return [h, *map(jnp.stack, zip(*final, strict=True))]

    def loss(*given):
        found = results(*given)
        each = zip(found, weights([r.shape for r in found], dtype), strict=True)
        return sum(jnp.vdot(r, w) for r, w in each), found

    gradient = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    given = jax.tree.map(jnp.asarray, (tensors, x, states))
    (d_tensors, d_x, d_state), (h, *final) = gradient(*given)
    return Results(h, final, d_tensors, d_x, d_state[bool(case.projection) :])


def assert_equal(found: Any, expected: Any, tolerance: float) -> None:
    """Entries differ by no more than `tolerance` of the largest of their array, and roundings.

    A gradient of one entry may be what large terms leave of each other, each of them rounded: a few
    roundings of the largest of all.
    """
    largest = max(np.abs(leaf).max(initial=0) for leaf in jax.tree.leaves(expected))

    def same(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        roundings = 8 * np.finfo(b.dtype).eps * largest
        atol = tolerance * np.abs(b).max(initial=0) + roundings
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)

    jax.tree.map(same, found, expected)
