"""What every benchmark shares: rivals, calls in turn, medians, and what they were measured on."""

import os
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, int, int, int]


class Rival(NamedTuple):
    """One implementation at one shape: `forward(x)` and `step(x)` on what `place(array)` gives."""

    place: Callable[[np.ndarray], Any]
    forward: Callable[[Any], None]
    step: Callable[[Any], None]


def jax_rival(
    run: Callable, params: Any, dtype: Any = jnp.float32, precision: str | None = None
) -> Rival:
    """A rival from a pure function run(params, x) -> h; x in `dtype`, products as `precision`."""

    def loss(params, x):
        return jnp.mean(run(params, x) ** 2)

    def precise(function):
        if precision is None:
            return jax.jit(function)

        def within(*arguments):
            with jax.default_matmul_precision(precision):
                return function(*arguments)

        return jax.jit(within)

    forward, step = precise(loss), precise(jax.grad(loss, argnums=(0, 1)))
    return Rival(
        lambda x: jax.device_put(jnp.asarray(x, dtype)),
        lambda x: jax.block_until_ready(forward(params, x)),
        lambda x: jax.block_until_ready(step(params, x)),
    )


def torch_rival(torch: Any, model: Any, dtype: Any, device: str) -> Rival:
    """A rival from a module of torch, called on x, that returns h first."""

    def finish():
        if device == "cuda":
            torch.cuda.synchronize()

    def forward(x):
        with torch.no_grad():
            model(x)[0].pow(2).mean()
        finish()

    def step(x):
        model.zero_grad()
        x.grad = None
        model(x)[0].pow(2).mean().backward()
        finish()

    def place(a):
        return torch.tensor(a, device=device).to(dtype).requires_grad_()

    return Rival(place, forward, step)


def interleaved(
    calls: dict[str, Callable[[int], None]], repeats: int, *, warm: bool = False
) -> dict[str, np.ndarray]:
    """Milliseconds of each call, `repeats` rounds in random order after one to warm up."""
    order, times = np.random.default_rng(0), {name: [] for name in calls}
    for call in calls.values() if not warm else ():
        call(0)
    for n in range(repeats):
        for name in order.permutation(list(calls)):
            began = time.perf_counter()
            calls[name](n)
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: np.array(t) for name, t in times.items()}


def in_turn(rival: Rival, kind: str, shape: tuple[int, ...]) -> Callable[[int], None]:
    """The n-th call of one kind, on one of four random inputs, over and over."""
    numbers = np.random.default_rng(1)
    inputs = [rival.place(numbers.standard_normal(shape, np.float32)) for _ in range(4)]
    call = getattr(rival, kind)
    return lambda n: call(inputs[n % len(inputs)])


def summary(times: dict[str, np.ndarray]) -> dict[str, Any]:
    """Medians and quartiles in milliseconds."""
    return {
        "median_ms": {name: float(np.median(t)) for name, t in times.items()},
        "quartiles_ms": {name: np.percentile(t, (25, 75)).tolist() for name, t in times.items()},
    }


def geometric_mean(ratios: list[float]) -> float:
    """The mean of ratios that gives the same whichever way round they are."""
    return float(np.exp(np.mean(np.log(ratios))))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
