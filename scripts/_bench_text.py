"""A character model under truncated backpropagation through time, and the same in torch.

An embedding of 64, an LSTM of 128 units and a dense layer read folk tunes in 32 parallel parts, 64
characters per update, with carried states, Adam and clipping. Compilation is not timed.
"""

import importlib
import os
from typing import Any

import jax
import numpy as np

import lstm_jax as lj
from experiments.common import tunes
from scripts._bench_own_data import installed

HIDDEN, EMBEDDING, WINDOW, BATCH = 128, 64, 64, 32
RATE, CLIP = 5e-3, 1.0
UPDATES = 300
TOKENS = UPDATES * WINDOW * BATCH


def characters() -> dict[str, Any]:
    """Returns a call of each rival: nats per character of held-out tunes, from seed n."""
    task = lj.tasks.LanguageModel(tunes.text_of("")[1], window=WINDOW)
    model = lj.nn.SequenceSpec(
        lj.cells.LSTM(HIDDEN), task.input_size, task.output_size, readout="every",
        front="embed", front_width=EMBEDDING,
    )  # fmt: skip

    def ours(n, updates=UPDATES):
        trials = lj.make_trials(seed=n, learning_rate=RATE, clip=CLIP)
        result = lj.fit(task, model, trials, updates, batch_size=BATCH, progress=False)
        return result.evaluate("validation").loss.tolist()

    ours(0, updates=1)
    return installed({"lstm_jax": ours, "torch": lambda n: [with_torch(task, n)]})


def with_torch(task: Any, seed: int) -> float:
    """Returns nats per character of the validation part, after a training by torch."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(seed)
    V, cell = task.output_size, lj.cells.LSTM(HIDDEN)
    embed = torch.nn.Embedding(V, EMBEDDING)
    lstm = torch.nn.LSTM(EMBEDDING, HIDDEN)
    start = lj.interop.to_torch(cell, ((lj.init(cell, jax.random.key(seed), EMBEDDING),),))
    lstm.load_state_dict({name: torch.tensor(array) for name, array in start.items()})
    head = torch.nn.Linear(HIDDEN, V)
    with torch.no_grad():  # as ours
        embed.weight.normal_(std=EMBEDDING**-0.5)
        head.weight.normal_(std=HIDDEN**-0.5)
        head.bias.zero_()
    params = [*embed.parameters(), *lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(params, lr=RATE)

    def loss(x, y, state):
        h, state = lstm(embed(x), state)
        return torch.nn.functional.cross_entropy(head(h).flatten(0, 1), y.flatten()), state

    train = torch.tensor(task.rows("train")["numbers"].astype(np.int64))
    size = (len(train) - 1) // BATCH
    offset, state = int(torch.randint(size - WINDOW, ())), None
    for _ in range(UPDATES):
        if offset + WINDOW > size:
            offset, state = 0, None
        at = torch.arange(offset, offset + WINDOW)[:, None] + size * torch.arange(BATCH)
        value, state = loss(train[at], train[at + 1], state)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(params, CLIP)
        optimizer.step()
        state, offset = tuple(s.detach() for s in state), offset + WINDOW
    with torch.no_grad():
        held = torch.tensor(task.rows("validation")["numbers"].astype(np.int64))[:, None]
        return float(loss(held[:-1], held[1:], None)[0])
