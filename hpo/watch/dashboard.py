"""optuna-dashboard on a storage and its artifacts: alone, or beside a run."""

import errno
import io
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from multiprocessing.connection import Connection
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna_dashboard
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage

from hpo.errors import InputError
from hpo.text import DASHBOARD, error_text, quoted
from hpo.workers.server import start

HOST, PORT = DASHBOARD
START_SECONDS = 60
POLITE = 10  # niceness beside a run: training goes first

Application = Callable[..., Iterable[bytes]]


class _Handler(WSGIRequestHandler):
    server: "Server"

    def log_message(self, format: str, *args: Any) -> None:
        """Logs no requests."""

    def get_stderr(self) -> "_Stack":
        return _Stack(self.server)


class _Stack(io.StringIO):
    """Takes the stack of an error that wsgiref writes, and says its last line."""

    def __init__(self, server: "Server") -> None:
        super().__init__()
        self.server = server

    def flush(self) -> None:
        text = self.getvalue().strip()
        self.seek(0)
        self.truncate()
        if text:
            self.server.say(text.splitlines()[-1])


class _Log(logging.Handler):
    """Says a line in place of the stacks that optuna-dashboard logs."""

    def __init__(self, server: "Server") -> None:
        super().__init__(logging.WARNING)
        self.server = server

    def emit(self, record: logging.LogRecord) -> None:
        self.server.say(record.getMessage().removeprefix("Exception: ").splitlines()[0])


class Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread, so that a large study does not block others. tell: is told,
    in a line, what fails in a request."""

    daemon_threads = True

    def __init__(self, host: str, port: int, tell: Callable[[str], None]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.tell, self.last = tell, ""
        super().__init__((host, port), _Handler)

    @property
    def address(self) -> str:
        """Returns the address, such as http://127.0.0.1:8080/."""
        host, port = self.server_address[:2]
        name = f"[{host!s}]" if ":" in str(host) else host
        return f"http://{name!s}:{port}/"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return ip_address(str(self.server_address[0]).partition("%")[0]).is_loopback

    def server_bind(self) -> None:
        """Skips WSGIServer's search for the host's full name, which may use the network."""
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that disconnect; says other errors in a line."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.say(error_text(error))

    def say(self, text: str) -> None:
        """Tells a line, unless it repeats the last one."""
        if text != self.last:
            self.last = text
            self.tell(f"dashboard: {text}")


def listen(
    storage: BaseStorage,
    folder: Path,
    host: str,
    port: int,
    tell: Callable[[str], None],
    allow: Sequence[str] = (),
) -> Server:
    """Returns a server that listens; serve_forever() serves. Port 0 takes a free port.

    tell: told, in a line, what fails in a request; repeated lines once. allow: names by which this
    machine may be asked, besides its addresses. Raises InputError if it cannot listen.
    """
    for name in allow:
        if not NAME.fullmatch(name):
            raise InputError(
                f"--allow-host {quoted(name)}: is no name of a machine; give it without a port"
            )
    if not host:
        raise InputError("--host '': would be every address of this machine; give one")
    try:
        server = Server(host, port, tell)
    except UnicodeError as error:
        raise InputError(f"--host {quoted(host)}: is no address; give one") from error
    except OSError as error:
        at_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        option = f"--port {port}" if at_port else f"--host {host}"
        remedy = "another, or --port 0 for a free one" if at_port else "an address of this machine"
        reason = error.strerror or str(error)
        raise InputError(f"{option}: cannot listen on it ({reason}); give {remedy}") from error
    logger = logging.getLogger("optuna_dashboard")
    logger.handlers, logger.propagate = [_Log(server)], False
    app = optuna_dashboard.wsgi(storage, artifact_store=FileSystemArtifactStore(folder))
    app.catchall = False  # bottle's own page would be a traceback
    server.set_app(_guarded(app, server, host, allow))
    return server


NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?", re.ASCII)
HOST_HEADER = re.compile(rf"({NAME.pattern}|\[[0-9a-fA-F:.]+\])(:\d+)?", re.ASCII)
READING = ("GET", "HEAD", "OPTIONS")


def _guarded(app: Any, server: Server, host: str, allow: Sequence[str]) -> Application:
    """Returns a WSGI application that passes on what a browser asks of this very server, and
    answers errors with a line.

    A site may lead its own name to this machine (DNS rebinding), or let its page send a request
    here: the browser says so by Host and by Origin. host and allow: see listen.
    """
    allowed = {name.lower().removesuffix(".") for name in allow}

    def refusal(environ: dict[str, Any]) -> str:
        asked, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        name, site = _name_in(asked), re.sub("^https?://", "", origin or "")
        if name not in {"localhost", host.lower(), *allowed} and not _is_address(name, server):
            return f"{quoted(asked)} is no known name of this dashboard"
        is_ours = site.lower() == asked.lower() or _name_in(site) in allowed  # behind a proxy
        if environ["REQUEST_METHOD"] in READING or origin is None or is_ours:
            return ""
        return f"{quoted(origin)} is another site, which may change nothing here"

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if text := refusal(environ):
            text += f"; open {server.address}, or start it with --allow-host NAME\n"
            status = "403 Forbidden"
        else:
            try:
                return app(environ, start_response)  # type: ignore[no-any-return]
            except ArtifactNotFound:
                status, text = "404 Not Found", "This artifact is gone."
            except Exception as error:
                status, text = "503 Service Unavailable", error_text(error)
                server.say(text)
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode()]

    return answer


def _name_in(host: str) -> str:
    """Returns the name in a Host header, without the port; empty if it is none."""
    found = HOST_HEADER.fullmatch(host)
    return found[1].lower().removesuffix(".") if found else ""


def _is_address(name: str, server: Server) -> bool:
    """Whether a name is an address of this machine, as far as the server is open to others."""
    try:
        address = IPv6Address(name[1:-1]) if name.startswith("[") else IPv4Address(name)
    except ValueError:
        return False
    return address.is_loopback or not server.is_local


# --- beside a run ------------------------------------------------------------------------------


@contextmanager
def beside(url: str, folder: Path, allow: Sequence[str] = ()) -> Iterator[str]:
    """Serves from another process for the time of the block; yields the address. Takes a free port
    if the usual one is in use. allow: see listen.

    Raises InputError if it cannot listen at all.
    """
    process, channel = start(f"{__name__}:serve_beside", url, folder, tuple(allow))
    try:
        word = "it did not start"
        with suppress(EOFError):
            word = channel.recv() if channel.poll(START_SECONDS) else word
        if not word.startswith("http"):
            raise InputError(f"--dashboard: {word}")
        yield word
    finally:
        process.kill()
        process.join()


def serve_beside(channel: Connection, url: str, folder: Path, allow: Sequence[str]) -> None:
    """Serves the dashboard beside a run, whose end ends it."""
    from hpo.storage.open import open_storage

    os.nice(POLITE)
    try:
        storage = open_storage(url, create=False)
        try:
            server = listen(storage, folder, HOST, PORT, lambda line: None, allow)
        except InputError:
            server = listen(storage, folder, HOST, 0, lambda line: None, allow)
    except InputError as error:
        channel.send(str(error))
        return
    channel.send(server.address)
    server.serve_forever()
