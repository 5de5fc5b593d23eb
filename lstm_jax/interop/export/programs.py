"""StableHLO: a directory of programs that any process with jax runs.

    directory/sequence.jax     whole sequences: (x, mask) -> y
    directory/step.jax         one time step of a stream: (x, mask, reset, state) -> (state, y)
    directory/manifest.json    names, shapes and dtypes of inputs and outputs
    directory/README.md        how to call them

The programs contain the parameters. T and B are symbolic. A state is a dictionary of arrays.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.engines.scan import Scan
from lstm_jax.interop.checking import named
from lstm_jax.interop.export.models import Exported, exported
from lstm_jax.interop.export.readme import SEQUENCE, STEP
from lstm_jax.interop.model_files import new_directory
from lstm_jax.nn import SequenceSpec
from lstm_jax.types import Array

FORMAT = "lstm_jax programs, version 1"
PLATFORMS = ("cpu", "cuda", "tpu")
Shapes = dict[str, Any]  # by name of the input: a `jax.ShapeDtypeStruct`, or a tree of them


def stablehlo(model: Any, directory: str | os.PathLike) -> None:
    """Writes a model as StableHLO programs for CPUs, NVIDIA GPUs and TPUs.

    One program runs whole sequences. Another runs one time step of a stream with explicit state,
    unless the model is bidirectional. T and B are symbolic. The programs are without noise; a cell
    such as `Zoneout` takes expectations.

    Args:
      model: a pair `(spec, params)`, or a trained network, such as `result.best()`, which takes
        inputs in the units of its data, NaN where one is missing.
      directory: the new directory; it is written whole or not at all.

    Raises:
      FileExistsError: the directory exists; it is left as it is.
      TypeError: `model` is no model; ValueError: the parameters are not those of the specification.
    """
    parts = exported(model)
    # Values are not asserted in an exported program, and one engine runs on every platform.
    spec = dataclasses.replace(parts.spec, engine=Scan(product="hoisted"), checked=False)
    parts = parts._replace(spec=spec)
    programs = {"sequence": _program(*_sequence(parts))}
    if not spec.bidirectional:
        programs["step"] = _program(*_step(parts))
    with new_directory(directory) as draft:
        _write(draft, spec, programs)


def _sequence(model: Exported) -> tuple[Callable, Shapes]:
    spec, params, scale, held = model

    def sequence(x, mask):
        return {"y": spec.apply(params, _scaled(x, scale), mask=_counting(mask, x, held))}

    T, B = jax.export.symbolic_shape("T, B")
    return sequence, {"x": _x(spec, T, B), "mask": jax.ShapeDtypeStruct((T, B), bool)}


def _step(model: Exported) -> tuple[Callable, Shapes]:
    spec, params, scale, held = model
    B: Any = jax.export.symbolic_shape("B")[0]
    states = jax.eval_shape(lambda: spec.initial_state(params, B))
    structure = jax.tree.structure(states)

    def step(x, mask, reset, state):
        before = jax.tree.unflatten(structure, [state[name] for name in named(states)])
        mask, x = _counting(mask, x, held), _scaled(x, scale)
        after, y = spec.stream(params, before, x, mask_t=mask, reset_t=reset)
        return {"state": named(after), "y": y}

    flags = jax.ShapeDtypeStruct((B,), bool)
    return step, {"x": _x(spec, B), "mask": flags, "reset": flags, "state": named(states)}


def _x(spec: SequenceSpec, *axes: Any) -> jax.ShapeDtypeStruct:
    if spec.front == "embed":
        return jax.ShapeDtypeStruct(axes, jnp.int32)
    return jax.ShapeDtypeStruct((*axes, spec.input_size), spec.dtype)


def _counting(mask: Array, x: Array, held: bool) -> Array:
    """Returns the mask without the time steps that have no number, where those hold the state."""
    return mask & ~jnp.isnan(x).all(-1) if held else mask


def _scaled(x: Array, scale: Any) -> Array:
    """Returns (x - mean) / deviation, 0 where x is NaN."""
    if scale is None:
        return x
    mean, deviation = (
        jnp.asarray(part, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,)) for part in scale
    )
    x = (x - mean) / deviation
    return jnp.where(jnp.isnan(x), jnp.zeros_like(x), x)


def _program(function: Callable, inputs: Shapes) -> jax.export.Exported:
    return jax.export.export(jax.jit(function), platforms=PLATFORMS)(**inputs)


def _write(directory: Path, spec: SequenceSpec, programs: dict[str, jax.export.Exported]) -> None:
    for name, program in programs.items():
        (directory / f"{name}.jax").write_bytes(program.serialize())
    described = {name: _described(f"{name}.jax", program) for name, program in programs.items()}
    manifest = {
        "format": FORMAT, "jax": jax.__version__, "platforms": PLATFORMS, "model": repr(spec),
        "programs": described,
    }  # fmt: skip
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (directory / "README.md").write_text(_readme(described))


def _described(file: str, program: jax.export.Exported) -> dict[str, Any]:
    _, inputs = jax.tree.unflatten(program.in_tree, program.in_avals)
    outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
    return {"file": file, "inputs": _arrays(inputs), "outputs": _arrays(outputs)}


def _readme(programs: dict[str, Any]) -> str:
    def words(array: dict[str, Any]) -> str:
        return f"[{', '.join(map(str, array['shape']))}] {array['dtype']}"

    sequence, step = programs["sequence"], programs.get("step")
    x, y = words(sequence["inputs"]["x"]), words(sequence["outputs"]["y"])
    text = SEQUENCE.format(jax=jax.__version__, platforms=", ".join(PLATFORMS), x=x, y=y)
    if step is None:
        return text
    state = step["inputs"]["state"]
    widths = {name: array["shape"][1] for name, array in state.items()}
    dtype = next(iter(state.values()))["dtype"]
    return text + STEP.format(widths=widths, state_dtype=dtype)


def _arrays(tree: Any) -> dict[str, Any]:
    """Returns a tree of dictionaries with a description of each array."""
    if isinstance(tree, dict):
        return {name: _arrays(value) for name, value in tree.items()}
    shape = [size if isinstance(size, int) else str(size) for size in tree.shape]
    return {"shape": shape, "dtype": str(tree.dtype)}
