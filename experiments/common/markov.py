"""Hidden Markov models of the task `Bits`, by hand or by EM, and their recall."""

import contextlib
import itertools
import logging
import warnings
from collections.abc import Iterator
from math import log2
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.tasks import bits as task

SYMBOLS = 4
PSEUDO = 1e-6  # added to EM's transition counts, for a state that is never left
LEAST = 1e-300  # the least probability within a logarithm
TIE = 1e-3  # two answers whose probabilities are nearer than this to 1/2 are a guess


class Model(NamedTuple):
    """A hidden Markov model with K states."""

    start: np.ndarray  # [K] probabilities of the first state
    transition: np.ndarray  # [K, K] from row to column
    emission: np.ndarray  # [K, 4] of the symbols in each state


class Learnt(NamedTuple):
    """The result of EM: the model, its log likelihood, and the iterations."""

    model: Model
    log_likelihood: float
    iterations: int


class Recall(NamedTuple):
    """The quality of recall, averaged over all sequences."""

    accuracy: float  # share of bits with a likelier right value; a tie is half right
    probability: float  # of the right string
    bits: float  # count + log2 of that probability: information about the string, in bits


def strings(count: int) -> Iterator[tuple[int, ...]]:
    """Returns all strings of `count` bits."""
    return itertools.product((0, 1), repeat=count)


def sequences(count: int, gap: int) -> list[np.ndarray]:
    """Returns every sequence of the task once, with its last bit; all equally likely."""
    return [
        np.array([*bits, *[task.BLANK] * blanks, task.CUE, *bits])
        for blanks in range(1, gap + 1)
        for bits in strings(count)
    ]


def states_needed(count: int) -> int:
    """Returns the states of `exact`: 2^count that wait, and two trees of 2 + ... + 2^count."""
    return 5 * 2**count - 4


def exact(count: int) -> Model:
    """Returns a model that predicts every recalled bit with certainty.

    A state ("read", w) is the prefix w of the bits, ("wait", w) all of them, ("tell", w) the rest w
    of the answer. Their symbols are the last of w, a blank or the cue, and the first of w.
    """
    lengths = range(1, count + 1)
    names = [("read", w) for n in lengths for w in strings(n)]
    names += [("wait", w) for w in strings(count)]
    names += [("tell", w) for n in lengths for w in strings(n)]
    place = {name: k for k, name in enumerate(names)}
    start, transition = np.zeros(len(names)), np.zeros((len(names), len(names)))
    emission = np.zeros((len(names), SYMBOLS))
    for (kind, w), k in place.items():
        if kind == "read":
            start[k] = len(w) == 1
            ahead = [("read", (*w, bit)) for bit in (0, 1)] if len(w) < count else [("wait", w)]
        elif kind == "wait":
            ahead = [("wait", w), ("tell", w)]
        else:
            ahead = [("tell", w[1:] or w)]
        transition[k, [place[name] for name in ahead]] = 1 / len(ahead)
        emission[k, {"read": [w[-1]], "wait": [task.BLANK, task.CUE], "tell": [w[0]]}[kind]] = 1
    return Model(start / 2, transition, emission / emission.sum(1, keepdims=True))


def learn(states: int, count: int, gap: int, iterations: int, seed: int) -> Learnt:
    """Fits a random model by Baum-Welch on every sequence once.

    The sequences are the whole distribution, so only the start is random. It ends when the log
    likelihood gains less than 1e-4 nats.
    """
    hmm = _hmmlearn().CategoricalHMM(
        states, n_features=SYMBOLS, n_iter=iterations, tol=1e-4, random_state=seed,
        transmat_prior=1 + PSEUDO, implementation="scaling",
    )  # fmt: skip
    observed = sequences(count, gap)
    symbols, lengths = np.concatenate(observed)[:, None], [len(sequence) for sequence in observed]
    with _shapes_may_be_set():
        hmm.fit(symbols, lengths)
        log_likelihood = float(hmm.score(symbols, lengths))
    model = Model(hmm.startprob_, hmm.transmat_, hmm.emissionprob_)
    return Learnt(model, log_likelihood, hmm.monitor_.iter)


def recall(model: Model, count: int, gap: int) -> Recall:
    """Returns the recall of a model: filtered predictions given all earlier true symbols.

    b_t ~ (b_(t-1) A) * B[:, s_t]; the prediction is (b_(t-1) A) B, for the symbols 0 and 1 alone.
    """
    batches = [np.array(list(group)) for _, group in itertools.groupby(sequences(count, gap), len)]
    probabilities = np.concatenate([_probabilities(model, batch, count) for batch in batches])
    right = np.where(np.abs(probabilities - 0.5) < TIE, 0.5, probabilities > 0.5)
    bits = np.log2(np.maximum(probabilities, LEAST)).sum(1) + count
    return Recall(float(right.mean()), float(probabilities.prod(1).mean()), float(bits.mean()))


def most_bits(states: int) -> float:
    """Returns log2 K, the upper bound of `Recall.bits` with K states.

    A model in state s gives the string w, one of 2^k, the probability q(w|s), so its answer has at
    most max_s q(w|s). The sum of these over w is at most K. The right string
    has therefore a probability of at most K / 2^k on average, and the mean of its logarithm is at
    most log2(K) - k (Jensen).
    """
    return log2(states)


def _probabilities(model: Model, batch: np.ndarray, count: int) -> np.ndarray:
    """Returns the probability of each answered bit [N, count], from sequences [N, T]."""
    ahead, probabilities = np.tile(model.start, (len(batch), 1)), []
    for t, symbols in enumerate(batch.T):
        if t >= batch.shape[1] - count:
            bits = np.maximum(ahead @ model.emission[:, :2], LEAST)
            probabilities.append(bits[np.arange(len(bits)), symbols] / bits.sum(1))
        belief = ahead * model.emission[:, symbols].T
        ahead = belief / np.maximum(belief.sum(1, keepdims=True), LEAST) @ model.transition
    return np.array(probabilities).T


@contextlib.contextmanager
def _shapes_may_be_set() -> Iterator[None]:
    """Silences NumPy on hmmlearn 0.3.3, which sets an array's shape: deprecated since NumPy 2.5."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Setting the shape on a NumPy array", DeprecationWarning, r"hmmlearn\."
        )
        yield


def _hmmlearn() -> Any:
    try:
        from hmmlearn import hmm  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "hidden Markov models need hmmlearn: pip install hmmlearn, a compiler where there is "
            "no wheel of it for this Python"
        ) from None
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)  # it warns at every rounding
    return hmm
