"""The exceptions a user can meet.

    IdmError
    ├── ConfigError   an option, size or combination that cannot work
    ├── ModelError    a model file that is missing, corrupt or of another kind
    ├── EngineError   an inference engine that is absent, incompatible or failed
    └── MediaError    a file or stream that cannot be opened, decoded or written

Every message says what was found, what was expected and what to do next, on one line.
Bugs stay ``ValueError`` and ``TypeError``.
"""


class IdmError(Exception):
    """Base of every error that the command line shows as one line."""


class ConfigError(IdmError):
    """An option, size or combination of both that cannot work."""


class ModelError(IdmError):
    """A model file that is missing, corrupt or not what its manifest says."""


class EngineError(IdmError):
    """An inference engine that is not installed, not compatible or failed while running."""


class MediaError(IdmError):
    """A file or stream that cannot be opened, decoded or written."""
