"""Interpolated n-gram models of characters, the baseline of a language model."""

from collections import Counter

import numpy as np

PLAIN = 0.75  # the discount of a text with too few counts for an estimate


def probabilities(train: str, held: str, most: int) -> np.ndarray:
    """Returns the probability of each held-out symbol by modified Kneser-Ney smoothing, by order.

    With c(h w) the count of symbol w after the context h of n symbols, and h' the context without
    its first symbol,

        p_n(w | h) = (c(h w) - D(c(h w)) + p_{n-1}(w | h') sum_v D(c(h v))) / sum_v c(h v).

    The longest contexts count occurrences; the others count the different symbols before h w. D is
    estimated for counts of one, two and more, and p_{-1} is uniform over the symbols of `train`. A
    context without counts leaves p_{n-1}.

    Args:
      train: the text that is counted.
      held: another text.
      most: the longest context of all.

    Returns:
      [most + 1, N]; row n has contexts of at most n symbols. A symbol that `train` does not have
      has nan.

    Source: Chen & Goodman 1999.
    """
    symbols = set(train)
    lower = np.array([1 / len(symbols) if w in symbols else np.nan for w in held])
    rows, seen = [], _grams(train, 1)
    for n in range(most + 1):
        rows.append(_mixed(seen, held, n, lower))
        seen = _grams(train, n + 2)
        lower = _mixed(Counter(gram[1:] for gram in seen), held, n, lower)
    return np.stack(rows)


def bits(train: str, held: str, most: int) -> np.ndarray:
    """Returns the bits per character of every order up to `most`, over all symbols but the first.

    Symbols that `train` does not have do not count.
    """
    return -np.nanmean(np.log2(probabilities(train, held, most)[:, 1:]), axis=1)


def _grams(text: str, size: int) -> Counter[str]:
    return Counter(text[i : i + size] for i in range(len(text) - size + 1))


def _mixed(seen: Counter[str], held: str, n: int, lower: np.ndarray) -> np.ndarray:
    """Returns p_n from the counts of n + 1 symbols and from p_{n-1}."""
    discount, total, saved = _discounts(seen), Counter(), Counter()
    for gram, count in seen.items():
        total[gram[:-1]] += count
        saved[gram[:-1]] += discount[min(count, 3)]  # pyright: ignore[reportArgumentType]
    grams = [held[i : i + n + 1] for i in range(len(held) - n)]
    c = np.array([seen[gram] for gram in grams])
    of_all, spared = (np.array([d[gram[:-1]] for gram in grams]) for d in (total, saved))
    mixed = c - discount[np.minimum(c, 3)] + spared * lower[n:]
    known = np.where(of_all > 0, mixed / np.maximum(of_all, 1), lower[n:])
    return np.concatenate([lower[:n], np.where(np.isnan(lower[n:]), np.nan, known)])


def _discounts(seen: Counter[str]) -> np.ndarray:
    """Returns the discounts of counts of 0, 1, 2, and 3 or more."""
    by_count = Counter(seen.values())
    n = [by_count[k] for k in range(1, 5)]
    if min(n) == 0:
        return np.array([0, PLAIN, PLAIN, PLAIN])
    y = n[0] / (n[0] + 2 * n[1])
    each = [k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3)]
    return np.clip([0, *each], 0, (0, 1, 2, 3))
