"""From photos to a shipped engine: every step is a command, ``python -m export.<step> --help``."""
