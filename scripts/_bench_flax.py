"""A recurrent policy in linen: a scanned GRU with resets, and `lj.linen.Recurrent` in its place."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

import lstm_jax as lj
from scripts._rivals import Shape, interleaved, summary


class ScannedRNN(linen.Module):
    """The recurrent network of PPO in linen: a GRU that restarts with each episode."""

    @functools.partial(
        linen.scan, variable_broadcast="params", in_axes=0, out_axes=0, split_rngs={"params": False}
    )
    @linen.compact
    def __call__(self, carry, inputs):
        """Advances a batch by one time step."""
        x, resets = inputs
        carry = jnp.where(resets[:, None], jnp.zeros_like(carry), carry)
        return linen.GRUCell(features=carry.shape[-1])(carry, x)


def policy(shape: Shape, repeats: int) -> dict[str, Any]:
    """Times the gradient of both layers at T, B, D, H; temporary memory in MiB."""
    T, B, D, H = shape
    draw, cell = np.random.default_rng(0), lj.cells.GRU(H)
    x = [jnp.asarray(draw.standard_normal((T, B, D), np.float32)) for _ in range(4)]
    resets = jnp.asarray(draw.random((T, B)) < 0.02)
    theirs, ours = ScannedRNN(), lj.linen.Recurrent(cell)
    variables: Any = theirs.init(jax.random.key(0), jnp.zeros((B, H)), (x[0], resets))
    tree = lj.linen.to_tree(lj.interop.from_linen(cell, variables["params"]["GRUCell_0"]))
    start = lj.initial_state(cell, B)
    rivals = {"ScannedRNN": (theirs, variables, start.h), "ours": (ours, {"params": tree}, start)}
    compiled = {
        name: gradient(module, carry, resets).lower(variables, x[0]).compile()
        for name, (module, variables, carry) in rivals.items()
    }

    def call(name, n):
        jax.block_until_ready(compiled[name](rivals[name][1], x[n % len(x)]))

    times = interleaved({name: functools.partial(call, name) for name in rivals}, repeats)
    memory = {n: c.memory_analysis().temp_size_in_bytes / 2**20 for n, c in compiled.items()}
    return {"shape": list(shape), "kind": "policy"} | summary(times) | {"temporaries_MiB": memory}


def gradient(module: Any, carry: Any, resets: jax.Array) -> Any:
    """Returns the compiled gradient of mean(h^2) in parameters and input."""

    def loss(variables, x):
        _, h = module.apply(variables, carry, (x, resets))
        return jnp.mean(jnp.square(h))

    return jax.jit(jax.grad(loss, (0, 1)))
