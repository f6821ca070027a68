"""The hpo command in forks of a process that has all modules loaded, torch included, and has done
nothing yet: a fork of the test's own would take over threads' locks, but no threads.

All runs of a test process share the server that their workers are forked from, which has torch.
Both together make a run three times as fast as a new process. What concerns processes themselves
(signals, kills, imports) is tested with the hpo_process fixture instead.
"""

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import hpo.model.weights
import hpo.report.write
import hpo.runs.runner
import hpo.storage.open
import hpo.watch.dashboard
import hpo.watch.terminal  # noqa: F401
from hpo import cli
from hpo.data import download
from hpo.process import collect_seldom
from hpo.workers import server

SECONDS = 10.0


@dataclass
class Ended:
    """What a command left: its exit code (None: it hung), output and errors."""

    code: int | None
    out: str
    err: str


def command(
    arguments: list[str], folder: Path, seconds: float = SECONDS, network: bool = False, **env: str
) -> Ended:
    """hpo with these arguments in `folder`. Its output goes into two files beside the folder."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps([arguments, str(folder), seconds, network, env]) + "\n")
    server.stdin.flush()
    return Ended(**json.loads(server.stdout.readline()))


@cache
def _server() -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True)
    atexit.register(process.communicate)
    return process


def serve() -> None:
    """Answers a line each, until its input ends."""
    server.preload()
    collect_seldom()  # as the command
    gc.freeze()  # a collection in a fork would write to, and so copy, what it shares with this one
    for line in sys.stdin:
        arguments, folder, seconds, network, env = json.loads(line)
        print(
            json.dumps(asdict(_forked(arguments, Path(folder), seconds, network, env))), flush=True
        )


def _forked(
    arguments: list[str], folder: Path, seconds: float, network: bool, env: dict[str, str]
) -> Ended:
    out, err = folder.parent / "stdout", folder.parent / "stderr"
    out.write_bytes(b"")
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            if not network:
                download._first_to_answer = lambda *_: None
            _become(arguments, folder, out, err, env)
        os._exit(99)
    deadline, serves = time.monotonic() + seconds, False
    while time.monotonic() < deadline:
        if arguments[:1] == ["dashboard"] and not serves and b"Ctrl-C" in out.read_bytes():
            serves = True
            os.kill(pid, signal.SIGTERM)
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"))
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return Ended(None, out.read_text(errors="replace"), err.read_text(errors="replace"))


def _become(arguments: list[str], folder: Path, out: Path, err: Path, env: dict[str, str]) -> None:
    os.setsid()
    os.chdir(folder)
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["hpo", *arguments]
    for name in [name for name in os.environ if name.startswith("HPO_")]:
        del os.environ[name]
    os.environ.update({"TMPDIR": str(folder), **env})
    import tempfile

    tempfile.tempdir = None
    # The server of the parent is in use: multiprocessing would ask the system whether it lives,
    # which only the parent may.
    forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None
    del sys.modules["__main__"].__file__  # which each worker would run as well
    code: Any = 98
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def check(ended: Ended, arguments: Any) -> str:
    """ "success" or "refused"; anything else is a fault."""
    text = f"{arguments!r:.2000}\n{ended.code}\n{ended.out[-2000:]}\n{ended.err[-3000:]}"
    assert ended.code is not None, f"hangs: {text}"
    assert "Traceback" not in ended.err + ended.out, text
    lines = ended.err.splitlines()
    if ended.code == 1:  # it had no time to finish any
        assert any("no trial has finished" in line for line in lines), text
        return "success"
    if ended.code == 130 and "Ctrl-C" in ended.out:  # a dashboard
        return "success"
    assert ended.code in (0, 2), text
    assert all(line.startswith(("hpo: ", "NOTE: ")) for line in lines), text
    assert all(len(line) < 2000 for line in lines), text
    assert all(line.isprintable() for line in lines), text
    if ended.code == 2:
        assert any(line.startswith("hpo: ") for line in lines), text
    return "refused" if ended.code else "success"


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


if __name__ == "__main__":
    serve()
