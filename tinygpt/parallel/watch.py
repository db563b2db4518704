"""A process beside the ranks of a machine that says which of them was killed.

The ranks cannot say it themselves: the engine ends them all within a millisecond. So each rank connects to
this process and sends its name and, if it ends by itself, a goodbye. The first connection that breaks without
a goodbye is that of the rank that was killed.
"""

import atexit
import contextlib
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

GOODBYE = b"!"


def start(ranks: int) -> str:
    """Start the process for so many ranks.

    Returns the path of the socket where they connect, or "" if there is no such process.
    """
    address = Path(tempfile.mkdtemp(prefix="ranks-")) / "socket"
    try:
        with socket.create_server(str(address), family=socket.AF_UNIX, backlog=ranks) as server:
            command = [sys.executable, "-S", __file__, str(server.fileno()), str(ranks)]
            subprocess.Popen(
                command,
                pass_fds=[server.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
    except OSError:  # the path is too long for a socket, or no process can be started: train without it
        address.unlink(missing_ok=True)
        address.parent.rmdir()
        return ""
    return str(address)


def connect(address: str, name: str) -> None:
    """Tell the process at this address the name of a rank, and say goodbye when the rank ends by itself."""
    with contextlib.suppress(OSError):
        line = socket.socket(socket.AF_UNIX)
        line.connect(address)
        line.send(f"{name}\n".encode())
        atexit.register(_say_goodbye, line)


def _say_goodbye(line):
    with contextlib.suppress(OSError):  # the process ends at the first goodbye, so later ones fail
        line.send(GOODBYE)


def main(server_number: int, ranks: int) -> None:
    """What the process does: wait until the first rank ends, and print an error if it said no goodbye.

    server_number: the open socket, inherited from the rank that started this process.
    """
    server = socket.socket(fileno=server_number)
    server.settimeout(60)  # enough for ranks that are starting; one that died before it connected never comes
    address = Path(server.getsockname())
    try:
        lines = [server.accept()[0] for _ in range(ranks)]
    except TimeoutError:
        return
    finally:
        address.unlink()
        address.parent.rmdir()
    by_number = {line.fileno(): line for line in lines}
    names = {number: _name(line) for number, line in by_number.items()}
    # epoll, where there is one, reports events in the order in which they happened
    poll = select.epoll() if hasattr(select, "epoll") else select.poll()
    for line in lines:
        poll.register(line, select.POLLIN)
    first, _ = poll.poll()[0]
    goodbye = by_number[first].recv(1)
    if not goodbye:
        print(f"error: {names[first]} was killed", file=sys.stderr)


def _name(line):
    name = b""
    while not name.endswith(b"\n"):
        name += line.recv(1) or b"a rank that had just begun\n"
    return name.decode().strip()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
