"""``python -m atelier.warm COMMAND ...``: run a command whose ``python -m atelier`` stages start with libraries loaded.

Imports take most of the time of a short stage (``benchmarks/loading.py``). This process imports the libraries once and
starts the command. Each ``python -m atelier`` below it, including notebook kernels, sends its arguments here; this
process forks, and the fork runs the stage in the client's folder, environment and streams, and exits if the client
exits. Forks share no state. With CUDA, which a forked process cannot use, stages import the libraries themselves.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from atelier import cli, lifetime, machine, params
from atelier.workspace import Workspace

STREAMS = (0, 1, 2)
END = b"\n"  # ends a message; JSON contains no newline
HASHES = "PYTHONHASHSEED"  # fixes the order of sets of strings, which a notebook's kernel needs
PREFIX = "atelier-warm-"  # of the socket's folder, followed by the server's process number
WAIT = 0.2  # seconds between checks of what has exited
PATIENCE = 10.0  # seconds that a process has to end after SIGTERM


def ask(arguments: Sequence[str], address: str) -> int:
    """Run ``python -m atelier`` with these arguments in a fork; returns its exit code, 1 if it was killed."""
    lifetime.end_with_stage()
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
    except KeyboardInterrupt:
        return cli.INTERRUPTED
    print("killed before it was done", file=sys.stderr)
    return 1


def serve(command: Sequence[str]) -> int:
    """Run the command and fork for each request until it ends; returns the command's exit code."""
    workspace = Workspace()
    machine.settle(params.load(workspace.params_file).machine.threads)
    cli.check_locks(workspace)
    for module in (*cli.SHARED.values(), "atelier.pipeline.run"):  # between them they import what most stages need
        cli.load(module)
    import torch

    copies: set[int] = set()
    # by which signals, and when Ctrl-C came; an exception from a handler is lost where it meets a finaliser
    ended: list[int] = []
    interrupted: list[float] = []
    with contextlib.ExitStack() as stack:
        listening = None if torch.cuda.is_available() else stack.enter_context(_listening())
        environment = os.environ | ({lifetime.ADDRESS: listening.getsockname()} if listening else {})
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: ended.append(number))
        running = subprocess.Popen(command, env=environment, preexec_fn=_bound)
        stack.callback(_end, running)
        stack.callback(_end_copies, copies)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is in a shell's background
            signal.signal(signal.SIGINT, lambda *_: interrupted.append(time.monotonic()))
        while running.poll() is None and not ended and not _ignored(interrupted):
            copies -= {copy for copy in copies if os.waitpid(copy, os.WNOHANG)[0]}
            if listening is None:
                time.sleep(WAIT)
                continue
            with contextlib.suppress(TimeoutError):
                copies |= _answered(listening, interrupted)
    return 128 + ended[0] if ended else cli.INTERRUPTED if interrupted else running.returncode


def _ignored(interrupted: Sequence[float]) -> bool:
    """Whether the command still runs long after Ctrl-C, which a terminal sends it too, because it has lost it."""
    return bool(interrupted) and time.monotonic() > interrupted[0] + PATIENCE


@contextlib.contextmanager
def _listening() -> Iterator[socket.socket | None]:
    """A socket in a folder of this process, or None where none can be made; folders of killed servers are removed."""
    _remove_stale(Path(tempfile.gettempdir()))
    try:
        folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
    except OSError as error:
        print(f"stages import their libraries themselves: {error}", file=sys.stderr)
        yield None
        return
    server = os.getpid()
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            try:
                listening.bind(str(Path(folder) / "socket"))
            except OSError as error:  # the path is too long
                print(f"stages import their libraries themselves: {folder}: {error}", file=sys.stderr)
                yield None
                return
            listening.listen()
            listening.settimeout(WAIT)
            yield listening
    finally:
        if os.getpid() == server:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    for stale in folder.glob(f"{PREFIX}*"):
        number = stale.name.removeprefix(PREFIX).partition("-")[0]
        if number.isdigit() and not lifetime.is_alive(int(number)):
            shutil.rmtree(stale, ignore_errors=True)


def _bound() -> None:
    """In the command, before it starts: it gets SIGTERM when the server dies."""
    lifetime.end_with_parent(signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command if it is still running."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_copies(copies: set[int]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for copy in copies:
            with contextlib.suppress(ProcessLookupError):
                os.kill(copy, number)
        until = time.monotonic() + PATIENCE
        while copies and time.monotonic() < until:
            copies -= {copy for copy in copies if os.waitpid(copy, os.WNOHANG)[0]}
            time.sleep(0.05)


def _answered(listening: socket.socket, interrupted: Sequence[float]) -> set[int]:
    """Accept one request and fork for it; returns the fork's number. TimeoutError where there is no request.

    After Ctrl-C no stage starts: the client exits as an interrupted one does.
    """
    line = listening.accept()[0]
    with line:
        message, streams, *_ = socket.recv_fds(line, 1 << 16, len(STREAMS))
        while message and not message.endswith(END):
            message = message + more if (more := line.recv(1 << 16)) else b""
        if interrupted:
            with contextlib.suppress(OSError):  # the client has gone
                line.sendall(str(cli.INTERRUPTED).encode())
            message = b""
        copy = os.fork() if message else 0  # without a message the client has gone
        if message and copy == 0:
            listening.close()
            work(line, streams, *json.loads(message))
        for stream in streams:
            os.close(stream)
    return {copy} if copy else set()


def work(
    line: socket.socket, streams: Sequence[int], folder: str, environment: Mapping[str, str], *arguments: str
) -> NoReturn:
    """In the fork: run the stage and send back its exit code."""
    lifetime.end_with_parent()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for default in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(default, signal.SIG_DFL)
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
        with contextlib.suppress(OSError, ValueError):  # a closed stream
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):  # the client has gone
            line.sendall(str(code).encode())
        os._exit(code)


def leave_with(line: socket.socket) -> None:
    """Exit this process when the client disconnects."""
    with contextlib.suppress(OSError):
        if line.recv(1):
            return
    os._exit(1)


if __name__ == "__main__":
    if not sys.argv[1:]:
        raise SystemExit("usage: python -m atelier.warm COMMAND ...")
    if os.environ.get(HASHES) != "0":  # read once, as Python starts
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {HASHES: "0"})
    raise SystemExit(cli.exit_code(serve, sys.argv[1:]))
