"""Problems, each a sampler with its sizes; `make` returns them by name."""

import inspect
from collections.abc import Callable

from lstm_jax.checks import check_choice
from lstm_jax.tasks import heads
from lstm_jax.tasks.adding import Adding, Adding1997, adding
from lstm_jax.tasks.base import SPLITS, Rows, Stats, Stream, Target, Task
from lstm_jax.tasks.bits import Bits
from lstm_jax.tasks.chorales import Chorales
from lstm_jax.tasks.copy_memory import CopyMemory
from lstm_jax.tasks.counting import Counting
from lstm_jax.tasks.digits import Digits
from lstm_jax.tasks.forecast import Forecast
from lstm_jax.tasks.images import Images
from lstm_jax.tasks.language_model import LanguageModel
from lstm_jax.tasks.languages import LANGUAGES, Language, language
from lstm_jax.tasks.reber import ContinualReber, EmbeddedReber
from lstm_jax.tasks.recall import Recall
from lstm_jax.tasks.sequence_tasks import Classification, Labelling, Regression

TASKS: dict[str, Callable[..., Task]] = {
    "recall": Recall,
    "copy_memory": CopyMemory,
    "adding": adding,
    "digits": Digits,
    "chorales": Chorales,
    "text": LanguageModel,
    "embedded_reber": EmbeddedReber,
    "continual_reber": ContinualReber,
    "counting": Counting,
    "bits": Bits,
    "language": language,
}


def make(name: str, **sizes) -> Task:
    """Returns the task called `name` in `TASKS`, with its sizes as keywords.

    Raises:
      ValueError: the name is unknown, or a size is missing, unknown or out of range.
    """
    check_choice("task", name, TASKS)
    signature = inspect.signature(TASKS[name])
    try:
        signature.bind(**sizes)
    except TypeError as error:
        takes = ", ".join(map(str, signature.parameters.values()))
        raise ValueError(f"task {name} takes ({takes}), got {sizes}: {error}") from None
    return TASKS[name](**sizes)


__all__ = [
    "LANGUAGES",
    "SPLITS",
    "TASKS",
    "Adding",
    "Adding1997",
    "Bits",
    "Chorales",
    "Classification",
    "ContinualReber",
    "CopyMemory",
    "Counting",
    "Digits",
    "EmbeddedReber",
    "Forecast",
    "Images",
    "Labelling",
    "Language",
    "LanguageModel",
    "Recall",
    "Regression",
    "Rows",
    "Stats",
    "Stream",
    "Target",
    "Task",
    "adding",
    "heads",
    "language",
    "make",
]
