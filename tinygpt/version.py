"""The version, written down here alone: pyproject.toml reads it without running any code."""

__version__ = "0.1.0"
