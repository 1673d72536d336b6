"""The exceptions FastLLM raises on purpose.

    FastLLMError
    ├── SettingsError      a value out of range (also a ValueError)
    ├── DataError          a file or an article that cannot be used (also a ValueError)
    ├── VocabularyError    token ids of one vocabulary offered to another (also a ValueError)
    ├── CheckpointError    a checkpoint that is missing, incomplete or of another format
    ├── NotFiniteError     a model's numbers are NaN or infinite (also an ArithmeticError)
    ├── TrainingError      a training that cannot go on: its last save is whole
    └── HubError           the Hugging Face Hub refused, or could not be reached

`FastLLMWarning` is no error: something is not as people might think, and the work goes on.

Every message says what was found, what was needed and what to do.
"""


class FastLLMError(Exception):
    """The root: catching it catches everything FastLLM raises on purpose."""


class SettingsError(FastLLMError, ValueError):
    """A setting out of its range, or two settings that exclude each other."""


class DataError(FastLLMError, ValueError):
    """A data file or an article that cannot be used."""


class VocabularyError(FastLLMError, ValueError):
    """Token ids of one vocabulary offered to a model of another."""


class CheckpointError(FastLLMError):
    """A checkpoint folder that is missing, incomplete, damaged or of another format."""


class NotFiniteError(FastLLMError, ArithmeticError):
    """Numbers of a model that are NaN or infinite: no text can be drawn from them."""


class TrainingError(FastLLMError):
    """A training that cannot go on; what it saved last is whole."""


class HubError(FastLLMError):
    """The Hub refused, or could not be reached."""


class FastLLMWarning(UserWarning):
    """What is done differs from what people might expect; the message says how."""
