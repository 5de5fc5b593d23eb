"""The README of a directory of exported programs."""

SEQUENCE = """# Exported recurrent model

`manifest.json` lists names, shapes and dtypes. The programs contain the parameters. They need jax
{jax}, or a later version that reads its exports, and run on {platforms}.
T (time steps) and B (batch) are free.

## Whole sequences
```python
from jax import export

with open("sequence.jax", "rb") as file:
    sequence = export.deserialize(bytearray(file.read()))
y = sequence.call(x=x, mask=mask)["y"]
```
`x` is {x}, time first. `mask` [T, B] is True at valid time steps. `y` is {y}.
"""

STEP = """
## One time step of a stream
```python
import jax.numpy as jnp

with open("step.jax", "rb") as file:
    step = export.deserialize(bytearray(file.read()))
state = {{name: jnp.zeros((B, width), "{state_dtype}") for name, width in {widths}.items()}}
reset = jnp.ones(B, bool)  # at the first time step of a stream, then zeros
result = step.call(x=x_t, mask=mask_t, reset=reset, state=state)
state, y_t = result["state"], result["y"]
```
`x_t` is `x` without T. A row with `reset` starts a new sequence, whatever its state. A row with a
`mask` of False holds its state; its `y` has no meaning.
"""
