"""Says which rank of a machine was killed: a process beside the ranks, for an engine ends the others within a
millisecond.

Each rank keeps a connection to it, says its name and, if it ends by itself, goodbye. The first connection
that breaks without one is that of the rank that was killed.
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


def start(ranks):
    """Start the process, for so many ranks; returns the path of the socket where they connect, "" if there
    can be none.
    """
    address = Path(tempfile.mkdtemp(prefix="ranks-")) / "socket"
    try:
        with socket.create_server(str(address), family=socket.AF_UNIX, backlog=ranks) as server:
            command = [sys.executable, "-S", __file__, str(server.fileno()), str(ranks)]
            silent = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
            subprocess.Popen(command, pass_fds=[server.fileno()], **silent)
    except OSError:  # the path is too long for a socket, or there is no room for a process: train without it
        address.unlink(missing_ok=True)
        address.parent.rmdir()
        return ""
    return str(address)


def connect(address, name):
    """Tell the process at this address the name of a rank; say goodbye when the rank ends by itself."""
    with contextlib.suppress(OSError):
        line = socket.socket(socket.AF_UNIX)
        line.connect(address)
        line.send(f"{name}\n".encode())
        atexit.register(_say_goodbye, line)


def _say_goodbye(line):
    with contextlib.suppress(OSError):  # after the first goodbye nobody listens any more
        line.send(GOODBYE)


def main(number, ranks):
    server = socket.socket(fileno=number)
    server.settimeout(60)  # they are on their way, unless one has died already
    address = Path(server.getsockname())
    try:
        lines = [server.accept()[0] for _ in range(ranks)]
    except TimeoutError:
        return
    finally:
        address.unlink()
        address.parent.rmdir()
    names = {line.fileno(): _name(line) for line in lines}
    # the former tells first what happened first
    poll = select.epoll() if hasattr(select, "epoll") else select.poll()
    for line in lines:
        poll.register(line, select.POLLIN)
    first, _ = poll.poll()[0]
    if not next(line for line in lines if line.fileno() == first).recv(1):
        print(f"error: {names[first]} was killed", file=sys.stderr)


def _name(line):
    name = b""
    while not name.endswith(b"\n"):
        name += line.recv(1) or b"a rank that had just begun\n"
    return name.decode().strip()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
