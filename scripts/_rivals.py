"""Shared by the benchmarks: rivals, interleaved calls, medians, tables, and the machine."""

import functools
import importlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lstm_jax as lj

Shape = tuple[int, int, int, int]
Result = TypeVar("Result")


class Rival(NamedTuple):
    """One implementation at one shape; `forward` and `step` take the result of `place(array)`."""

    place: Callable[[np.ndarray], Any]
    forward: Callable[[Any], None]
    step: Callable[[Any], None]
    temporaries: Callable[[tuple[int, ...]], int] | None = None  # bytes of a step at x's shape


def jax_rival(
    run: Callable, params: Any, dtype: Any = jnp.float32, precision: str | None = None
) -> Rival:
    """Returns a rival from run(params, x) -> h, with x in `dtype` and products in `precision`."""

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

    def temporaries(shape):
        x = jax.ShapeDtypeStruct(shape, dtype)
        planned = step.lower(params, x).compile().memory_analysis()
        assert planned is not None
        return planned.temp_size_in_bytes

    return Rival(
        lambda x: jax.device_put(jnp.asarray(x, dtype)),
        lambda x: jax.block_until_ready(forward(params, x)),
        lambda x: jax.block_until_ready(step(params, x)),
        temporaries,
    )


def spread_rival(run: Callable, params: Any, *terms: Any, checks: bool = True) -> Rival:
    """A rival as `jax_rival`, whose batch all devices share: each runs its rows of x [T, B, D].

    `checks` are those of `shard_map`, which Flax's RNN does not pass.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    whole, rows = PartitionSpec(), PartitionSpec(None, "batch")
    spread = jax.shard_map(run, mesh=mesh, in_specs=(whole, rows), out_specs=rows, check_vma=checks)
    rival = jax_rival(spread, jax.device_put(params, NamedSharding(mesh, whole)), *terms)
    return rival._replace(place=lambda x: jax.device_put(x, NamedSharding(mesh, rows)))


def torch_rival(torch: Any, model: Any, dtype: Any, device: str) -> Rival:
    """Returns a rival from a torch module, model(x) -> (h, ...)."""

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
    calls: dict[str, Callable[[int], None]],
    repeats: int,
    *,
    warm: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Returns milliseconds of each call in `repeats` rounds of random order, after a warm-up."""
    order, times = np.random.default_rng(0), {name: [] for name in calls}
    for call in calls.values() if not warm else ():
        call(0)
    for n in range(repeats):
        for name in order.permutation(list(calls)):
            began = clock()
            calls[name](n)
            times[name].append(1e3 * (clock() - began))
    return {name: np.array(t) for name, t in times.items()}


def seconds(calls: dict[str, Callable[[int], None]], repeats: int) -> dict[str, Any]:
    """Returns all seconds of each call, interleaved without a warm-up, and their medians."""
    times = {n: each / 1e3 for n, each in interleaved(calls, repeats, warm=True).items()}
    return {
        "median_s": {name: float(np.median(each)) for name, each in times.items()},
        "all_s": {name: each.tolist() for name, each in times.items()},
    }


def ignoring(call: Callable[[], Any]) -> Callable[[int], Any]:
    """Returns a call that ignores the number of the repetition."""
    return lambda n: call()


def keeping(
    calls: dict[str, Callable[[int], list]],
) -> tuple[dict[str, Callable[[int], None]], dict[str, list]]:
    """Returns calls for `interleaved`, and the lists that collect their results."""
    found = {name: [] for name in calls}

    def kept(name, n):
        found[name].extend(calls[name](n))

    return {name: functools.partial(kept, name) for name in calls}, found


def in_turn(rival: Rival, kind: str, shape: tuple[int, ...]) -> Callable[[int], None]:
    """Returns a call of one kind that cycles through four random inputs."""
    numbers = np.random.default_rng(1)
    inputs = [rival.place(numbers.standard_normal(shape, np.float32)) for _ in range(4)]
    call = getattr(rival, kind)
    return lambda n: call(inputs[n % len(inputs)])


def compared(
    makers: Mapping[str, Callable[[Any], Rival]], shape: tuple[int, ...], kind: str, repeats: int
) -> dict[str, Any]:
    """Returns the times of one kind of call at one shape, and why a rival has none."""
    calls, skipped = {}, {}
    for name, make in makers.items():
        try:
            call = in_turn(make(shape), kind, shape[:-1])
            call(0)
            call(1)
            calls[name] = call
        except Exception as error:
            skipped[name] = reason(error)
    times = interleaved(calls, repeats, warm=True)
    return {"shape": list(shape), "kind": kind, "skipped": skipped} | summary(times)


def summary(times: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns medians and quartiles in milliseconds."""
    return {
        "median_ms": {name: float(np.median(t)) for name, t in times.items()},
        "quartiles_ms": {name: np.percentile(t, (25, 75)).tolist() for name, t in times.items()},
    }


def left_out(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Returns a line for each rival without figures, with its reason."""
    skipped = (pair for row in rows for pair in row.get("skipped", {}).items())
    return [f"left out: {name} ({why})" for name, why in dict.fromkeys(skipped)]


class Clock:
    """Tells whether one more part of a job fits its time."""

    def __init__(self, minutes: float):
        self.end, self.longest = time.monotonic() + 60 * minutes, 0.0

    def fits(self) -> bool:
        """Returns whether a part as long as the longest so far would end in time."""
        return time.monotonic() + self.longest <= self.end

    def timed(self, part: Callable[[], Result]) -> Result:
        """Runs a part; keeps the longest time."""
        began = time.monotonic()
        result = part()
        self.longest = max(self.longest, time.monotonic() - began)
        return result


def reason(error: Exception) -> str:
    """Returns an error in one short line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def geometric_mean(ratios: list[float]) -> float:
    """Returns the geometric mean, under which the mean of inverse ratios is the inverse mean."""
    return float(np.exp(np.mean(np.log(ratios))))


def machine() -> dict[str, Any]:
    """Returns the machine and the date of the figures."""
    return {
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


# Layers. Each is made at a shape T,B,D,H; ours also at N,T,B,D,H. -------------------------------

# Name in the tables -> the dtype of x and the precision of float32 products.
TERMS: dict[str, tuple[Any, str | None]] = {
    "usual": (jnp.float32, None),
    "f32": (jnp.float32, "float32"),
    "tf32": (jnp.float32, "tensorfloat32"),
    "bf16": (jnp.bfloat16, None),
}


def ours(
    engine: Any,
    terms: str,
    shape: tuple[int, ...],
    make: Callable[[int], lj.Cell] = lj.cells.LSTM,
    rival: Callable[..., Rival] = jax_rival,
) -> Rival:
    """Returns a cell of ours under one engine; N of them, by vmap, if the shape has five axes."""
    run, params = our_run(engine, shape[-4:], make)
    if len(shape) == 5:
        keys = jax.random.split(jax.random.key(0), shape[0])
        params = jax.vmap(lambda key: lj.init(make(shape[-1]), key, shape[-2]))(keys)
        run = jax.vmap(run)
    return rival(run, params, *TERMS[terms])


def our_run(engine: Any, shape: Any, make: Callable[[int], lj.Cell] = lj.cells.LSTM):
    """Returns run(params, x) -> h, with noise for a noisy cell, and parameters."""
    T, _, D, H = shape
    cell = make(H)
    engine = lj.engines.resolve(engine, cell) if isinstance(engine, str) else engine
    noise = lj.Noise(jax.random.split(jax.random.key(1), T)) if cell.noisy else None
    params = lj.init(cell, jax.random.key(0), D)
    return lambda p, x: lj.unroll(cell, p, x, noise=noise, engine=engine)[1], params


def flax_linen(
    terms: str, shape: Shape, remat: bool = False, rival: Callable[..., Rival] = jax_rival
) -> Rival:
    """Returns Flax's RNN of its faster cell; `remat` recomputes time steps (`jax.checkpoint`)."""
    linen = importlib.import_module("flax.linen")
    _, B, D, H = shape
    kind = linen.remat(linen.OptimizedLSTMCell) if remat else linen.OptimizedLSTMCell
    model = linen.RNN(kind(H, dtype=TERMS[terms][0]), time_major=True)
    params = model.init(jax.random.key(0), jnp.zeros((1, B, D)))
    return rival(model.apply, params, *TERMS[terms])


def haiku(terms: str, shape: Shape) -> Rival:
    """Returns Haiku's LSTM, unrolled by its scan."""
    hk = importlib.import_module("haiku")
    T, B, D, H = shape

    def network(x):
        core = hk.LSTM(H)
        return hk.dynamic_unroll(core, x, core.initial_state(B))[0]

    model = hk.without_apply_rng(hk.transform(network))
    return jax_rival(
        model.apply, model.init(jax.random.key(0), jnp.zeros((T, B, D))), *TERMS[terms]
    )


def jax_cudnn(terms: str, shape: Shape) -> Rival:
    """Returns jax.experimental.rnn; x is transposed to batch first outside the timed call."""
    rnn = importlib.import_module("jax.experimental.rnn")
    T, B, D, H = shape
    weights = rnn.init_lstm_weight(jax.random.key(0), D, H, 1, False)

    def run(weights, x):
        zeros, lengths = jnp.zeros((1, B, H)), jnp.full((B,), T, jnp.int32)
        return rnn.lstm(x, zeros, zeros, weights, lengths, D, H, 1, 0.0, False)[0]

    rival = jax_rival(run, weights, *TERMS[terms])
    return rival._replace(place=lambda x: rival.place(np.ascontiguousarray(x.swapaxes(0, 1))))


def torch_lstm(dtype: str, shape: Shape) -> Rival:
    """Returns nn.LSTM of torch: cuDNN's if jax runs on a GPU, else on as many threads as cores."""
    torch, device = torch_and_device()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    kind = getattr(torch, dtype)
    return torch_rival(torch, torch.nn.LSTM(*shape[2:], device=device, dtype=kind), kind, device)


def flash_rnn(dtype: str, shape: Shape) -> Rival:
    """Returns FlashRNN's fused kernel of one head, after a product for the input."""
    torch, device = torch_and_device()
    flashrnn = importlib.import_module("flashrnn").flashrnn
    _, _, D, H = shape
    kind = getattr(torch, dtype)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Linear(D, 4 * H, bias=False, device=device, dtype=kind)
            scale = H**-0.5
            draw = functools.partial(torch.randn, device=device, dtype=kind)
            self.r = torch.nn.Parameter(scale * draw(4, 1, H, H))
            self.b = torch.nn.Parameter(draw(4, 1, H))

        def forward(self, x):
            from_x = self.w(x).unflatten(-1, (4, 1, H))
            states, _ = flashrnn(from_x, self.r, self.b, function="lstm", backend="cuda_fused")
            return states

    rival = torch_rival(torch, Network(), kind, device)
    return rival._replace(place=lambda x: rival.place(np.ascontiguousarray(x.swapaxes(0, 1))))


def torch_and_device() -> tuple[Any, str]:
    """Returns torch and its device: a GPU if jax runs on one."""
    torch = importlib.import_module("torch")
    if jax.default_backend() != "gpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        return torch, "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("this torch sees no GPU")
    return torch, "cuda"
