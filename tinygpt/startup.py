"""One line instead of a traceback when a program of ours cannot even be imported.

That happens when a package is missing or is another one of the same name, or when memory is so short that a
library does not fit. Whoever imports tinygpt in a program of their own gets the usual exceptions.
"""

import sys
from pathlib import Path


def _hook(kind, error, trace):
    if issubclass(kind, KeyboardInterrupt):  # OpenBLAS too sends this signal, if it cannot start a thread
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    if not issubclass(kind, (ImportError, MemoryError)):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: cannot start: {explain(error)}", file=sys.stderr)
    sys.exit(2)


def explain(error: BaseException) -> str:
    """What went wrong with an import, and what to do."""
    cause = error.__cause__ or error  # NumPy puts a page of advice around it
    reason = next((line for line in str(cause).splitlines() if line.strip()), "").rstrip(".")
    if isinstance(cause, MemoryError) or is_lack_of_memory(cause):
        reason = f"out of memory: {reason}" if reason else "out of memory"
        return f"{reason}; close other programs, or raise the limit (ulimit -v)"
    if isinstance(cause, ModuleNotFoundError):
        return f"{reason}; install what it needs: pip install -e ."
    return reason


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether a library or a thread could not be started for lack of memory."""
    signs = ("failed to map segment", "cannot allocate memory", "can't start new thread")
    return any(sign in str(error).lower() for sign in signs)


# As long as Python looks for the module that -m names, "-m" stands in its place.
if sys.argv[0] == "-m" or Path(sys.argv[0]).name == "train.py":
    sys.excepthook = _hook
