"""How the programs end: exit codes, and one line for what went wrong."""

import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from tinygpt import streams
from tinygpt.config import UserError
from tinygpt.parallel.ranks import rank_by_engine, speaker
from tinygpt.startup import is_lack_of_memory


def exit_with_code(function: Callable[[], Any]) -> None:
    """Run a command; the user's mistakes become one line on stderr and exit code 2."""
    streams.make_safe()
    # The training loop itself reports overflow and NaN.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="autograd")
    try:
        try:
            function()
        finally:
            streams.finish_output()
    except UserError as error:
        _fail(str(error))
    except MemoryError as error:
        reason = "out of memory"
        if str(error):
            reason += f": {error}".rstrip(".")
        _fail(f"{reason}; a smaller model or batch needs less")
    except BrokenPipeError:  # the program that reads our output, such as `head`, has ended
        sys.exit(141)  # what a shell reports for a program that was ended so
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        streams.tell("\ninterrupted")
        sys.exit(130)
    except Exception as error:
        if is_lack_of_memory(error):
            _fail(f"out of memory: {error}; a smaller model or batch needs less, and so do fewer --threads")
        if rank_by_engine() is not None:
            streams.tell(f"error: rank {rank_by_engine()} failed, which ends the job:")
        raise


def _fail(message) -> NoReturn:
    streams.tell(f"error: {speaker()}{message}")
    sys.exit(2)
