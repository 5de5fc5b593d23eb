"""The types of rows: equal names and fields give one type."""

import collections
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lstm_jax import types


def test_threads_that_ask_at_once_get_one_type(monkeypatch):
    make: Any = collections.namedtuple

    def slowly(*arguments):
        time.sleep(0.05)
        return make(*arguments)

    monkeypatch.setattr(collections, "namedtuple", slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: types.row_type("Asked", ("at", "once")), range(4)))
    assert len(set(found)) == 1
