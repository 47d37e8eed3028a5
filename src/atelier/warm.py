"""``python -m atelier.warm COMMAND ...``: run a command whose ``python -m atelier`` stages start with libraries loaded.

Imports take most of the time of a short stage (``benchmarks/loading.py``). This process imports the libraries once and
starts the command. Each ``python -m atelier`` below it, including notebook kernels, sends its arguments here; this
process forks, and the fork runs the stage in the client's folder, environment and streams, and exits if the client
exits. Forks share no state. With CUDA, which a forked process cannot use, stages import the libraries themselves.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from atelier import cli, machine, params
from atelier.workspace import Workspace

ADDRESS = "ATELIER_WARM"  # environment variable: the server's socket
STREAMS = (0, 1, 2)
END = b"\n"  # ends a message; JSON contains no newline
HASHES = "PYTHONHASHSEED"  # fixes the order of sets of strings, which a notebook's kernel needs


def ask(arguments: Sequence[str], address: str) -> int:
    """Run ``python -m atelier`` with these arguments in a fork; returns its exit code, 1 if it was killed."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(address)
            message = json.dumps([os.getcwd(), dict(os.environ), *arguments])
            socket.send_fds(line, [message.encode() + END], STREAMS)
            if said := line.recv(16):
                return int(said)
    except OSError as error:
        print(f"atelier.warm does not answer, was it killed? {error}", file=sys.stderr)
        return 1
    print("killed before it was done", file=sys.stderr)
    return 1


def serve(command: Sequence[str]) -> int:
    """Run the command and fork for each request until it ends; returns the command's exit code."""
    machine.settle(params.load(Workspace().params_file).machine.threads)
    cli.load("atelier.models.base")
    import torch

    if torch.cuda.is_available():
        return subprocess.call(command)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        address = str(Path(folder) / "socket")
        listening.bind(address)
        listening.listen()
        listening.settimeout(0.2)  # seconds between checks of what has exited
        running = subprocess.Popen(command, env=os.environ | {ADDRESS: address})
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal also sends it to the command and the forks
        copies: list[int] = []
        while running.poll() is None:
            copies = [copy for copy in copies if os.waitpid(copy, os.WNOHANG)[0] == 0]
            try:
                line = listening.accept()[0]
            except TimeoutError:
                continue
            with line:
                message, streams, *_ = socket.recv_fds(line, 1 << 16, len(STREAMS))
                while message and not message.endswith(END):
                    message = message + more if (more := line.recv(1 << 16)) else b""
                if not message:  # the client has gone
                    for stream in streams:
                        os.close(stream)
                    continue
                copy = os.fork()
                if copy == 0:
                    listening.close()
                    work(line, streams, *json.loads(message))
                copies.append(copy)
                for stream in streams:
                    os.close(stream)
        return running.returncode


def work(
    line: socket.socket, streams: Sequence[int], folder: str, environment: Mapping[str, str], *arguments: str
) -> NoReturn:
    """In the fork: run the stage and send back its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in zip(STREAMS, streams, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=leave_with, args=[line], daemon=True).start()
    code = 1
    try:
        code = cli.main(list(arguments))
    except BaseException:  # the fork must exit whatever happens, and not return to the server's loop
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        line.sendall(str(code).encode())
        os._exit(code)


def leave_with(line: socket.socket) -> None:
    """Exit this process when the client disconnects."""
    if not line.recv(1):
        os._exit(1)


if __name__ == "__main__":
    if not sys.argv[1:]:
        raise SystemExit("usage: python -m atelier.warm COMMAND ...")
    if os.environ.get(HASHES) != "0":  # read once, as Python starts
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {HASHES: "0"})
    try:
        raise SystemExit(serve(sys.argv[1:]))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
