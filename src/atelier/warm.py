"""``python -m atelier.warm COMMAND ...``: a command below which stages find their libraries loaded.

Loading them is most of a short stage (``benchmarks/loading.py``). This process loads them once and starts the command.
Every ``python -m atelier`` below it, a notebook's kernel too, sends its arguments here, and a copy of this process does
what they say: in the folder, in the environment and on the streams of the one that asked, and no longer than that one
lives. Nothing is kept between copies. Where there is CUDA, which a copy cannot use, stages load their own.
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

from atelier import machine, params

ADDRESS = "ATELIER_WARM"  # in the environment: where to ask
STREAMS = (0, 1, 2)
END = b"\n"  # of a message; JSON has none within
HASHES = "PYTHONHASHSEED"  # the order of sets of strings, which a notebook's kernel needs to be the same each time


def ask(arguments: Sequence[str], address: str) -> int:
    """Have these arguments of ``python -m atelier`` done by a copy; its exit code, 1 where it was killed."""
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
    """Run the command, and a copy of this process for everyone that asks meanwhile; the command's exit code."""
    machine.settle(params.load().machine.threads)
    from atelier.__main__ import load_libraries

    load_libraries()
    import torch

    if torch.cuda.is_available():
        return subprocess.call(command)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        address = str(Path(folder) / "socket")
        listening.bind(address)
        listening.listen()
        listening.settimeout(0.2)  # seconds until a look at what has ended
        running = subprocess.Popen(command, env=os.environ | {ADDRESS: address})
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the command and to copies, too
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
                if not message:  # gone again
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
    """In a copy: do what was asked and tell the exit code."""
    from atelier.__main__ import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for at, stream in zip(STREAMS, streams, strict=True):
        os.dup2(stream, at)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=leave_with, args=[line], daemon=True).start()
    code = 1
    try:
        code = main(list(arguments))
    except BaseException:  # whatever ends a process ends this copy, which must not go on as its original would
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        line.sendall(str(code).encode())
        os._exit(code)


def leave_with(line: socket.socket) -> None:
    """End this process when the one at the other end is gone."""
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
