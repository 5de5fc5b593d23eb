"""Runs that die at a moment of one's choice."""

from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """Stands for kill -9: nothing gets the chance to clean up after it but the test."""


def mortal(patch: Any, moment: int, *methods: tuple[Any, str]) -> None:
    """Makes one call of the methods the last: the process dies before or after it.

    Args:
      patch: a `pytest.MonkeyPatch`.
      moment: 2 n to die before call number n of them all, 2 n + 1 to die after it.
      *methods: pairs of an owner and a name.
    """
    calls = 0

    def dying(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls == moment // 2 + 1 and moment % 2 == 0:
                raise Killed
            result = method(*arguments, **keywords)
            if calls == moment // 2 + 1:
                raise Killed
            return result

        return call

    for owner, name in methods:
        patch.setattr(owner, name, dying(getattr(owner, name)))
