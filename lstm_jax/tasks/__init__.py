"""Problems, each a sampler with its sizes."""

from lstm_jax.tasks import heads
from lstm_jax.tasks.adding import Adding, Adding1997
from lstm_jax.tasks.base import SPLITS, Rows, Stats, Stream, Target, Task
from lstm_jax.tasks.bits import Bits
from lstm_jax.tasks.chorales import Chorales
from lstm_jax.tasks.copy_memory import CopyMemory
from lstm_jax.tasks.counting import Counting
from lstm_jax.tasks.digits import Digits
from lstm_jax.tasks.forecast import Forecast
from lstm_jax.tasks.images import Images
from lstm_jax.tasks.language_model import LanguageModel
from lstm_jax.tasks.languages import LANGUAGES, Language
from lstm_jax.tasks.reber import ContinualReber, EmbeddedReber
from lstm_jax.tasks.recall import Recall
from lstm_jax.tasks.sequence_tasks import Classification, Labelling, Regression

__all__ = [
    "LANGUAGES",
    "SPLITS",
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
    "heads",
]
