"""Downloads a dataset by torchvision, which does not wait for servers that keep silent or trickle,
and leaves no half files."""

import http.client
import io
import queue
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpo.errors import InputError

NO_ANSWER_SECONDS = 10.0
# Less than 1 kB/s: MNIST would take three hours, and a modem was five times as fast. Half a minute
# leaves time for a connection that stalls to come back.
SLOW_SECONDS, SLOW_BYTES = 30.0, 30_000
REMEDY = "give --data-dir or HPO_DATA_DIR"


class Unavailable(InputError):  # noqa: N818
    """The dataset is not on disk and cannot be downloaded."""


class TooSlow(RuntimeError):  # noqa: N818
    """Too little arrives. After an OSError torchvision would try the server again."""


def download(
    name: str,
    torchvision_class: str,
    downloads: Sequence[Mapping[str, Any]],
    missing: Sequence[str],
    files: Sequence[str],
    folder: Path,
) -> None:
    """Downloads a dataset to `folder` by a class of torchvision.datasets, which checks the files.

    downloads: the arguments of the class, once for each download.
    missing: the files that are not there, for the message.
    files: those that are kept, plain or as .gz.
    Raises Unavailable if no server answers within 10 seconds, if less than 1 kB/s arrives, and if
    `folder` cannot be written.
    """
    import torchvision.datasets

    dataset = getattr(torchvision.datasets, torchvision_class)
    reason = f"{name}: {', '.join(missing)} not in {folder / torchvision_class / 'raw'}"
    mirrors = _mirrors(dataset)
    answering = _first_to_answer(mirrors, NO_ANSWER_SECONDS)
    if answering is None:
        raise Unavailable(f"{reason}, and no server answers; {REMEDY}")
    # torchvision gives up at a mirror that keeps silent: the one that answered comes first.
    mirrors = sorted(mirrors, key=lambda url: bool(url != answering))
    for place, mirror in enumerate(mirrors, 1):
        try:
            with _watched():
                changed = type(dataset.__name__, (dataset,), {"mirrors": mirrors[place - 1 :]})
                return _download(changed, downloads, files, folder)
        except (RuntimeError, OSError, http.client.HTTPException) as error:
            slow = isinstance(error, TooSlow)  # older torchvision does not go on then
            if slow and place < len(mirrors):
                continue
            cause = f"{mirror}: " * slow + (" ".join(str(error).split()) or type(error).__name__)
            raise Unavailable(f"{reason}, and downloading failed: {cause}; {REMEDY}") from error


def _mirrors(dataset: Any) -> list[str]:
    """Returns the URLs that the class downloads from: mirrors, EMNIST's archive, QMNIST's files."""
    if dataset.__name__ == "EMNIST":
        return [dataset.url]
    if isinstance(dataset.resources, dict):
        return [dataset.resources["train"][0][0]]
    return list(dataset.mirrors)


def _download(
    dataset: Any, downloads: Sequence[Mapping[str, Any]], files: Sequence[str], folder: Path
) -> None:
    """Downloads beside the place and moves the files at the end: a kill leaves no half file."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as temporary:
        for arguments in downloads:
            dataset(temporary, **arguments, download=True)
        raw = folder / dataset.__name__ / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for file in (Path(temporary) / dataset.__name__ / "raw").iterdir():
            if file.name.removesuffix(".gz") in files:
                file.replace(raw / file.name)


def _first_to_answer(mirrors: list[str], seconds: float) -> str | None:
    """Returns the first mirror that answers a request, even by an error page; None if none does in
    so many seconds, name look-up included."""
    answers: queue.Queue[str | None] = queue.Queue()

    def request(url: str) -> None:
        try:
            head = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(head, timeout=seconds).close()
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, http.client.HTTPException):
            answers.put(None)
            return
        answers.put(url)

    for url in mirrors:
        threading.Thread(target=request, args=(url,), daemon=True).start()
    deadline = time.monotonic() + seconds
    with suppress(queue.Empty):
        for _ in mirrors:
            if answer := answers.get(timeout=max(0.0, deadline - time.monotonic())):
                return answer
    return None


# --- servers that keep silent or trickle -------------------------------------------------------


@contextmanager
def _watched() -> Iterator[None]:
    """Gives up connections that keep silent or trickle, also those of torchvision, which reads
    without a limit of time."""
    before = socket.getdefaulttimeout(), http.client.HTTPConnection.response_class
    socket.setdefaulttimeout(NO_ANSWER_SECONDS)
    http.client.HTTPConnection.response_class = _Response
    try:
        yield
    finally:
        socket.setdefaulttimeout(before[0])
        http.client.HTTPConnection.response_class = before[1]


class _Response(http.client.HTTPResponse):
    """A server's answer whose bytes are counted as they arrive."""

    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self.fp = io.BufferedReader(_Counted(self.fp.detach(), self))


class _Counted(io.RawIOBase):
    """The bytes of an answer. Raises TooSlow if too few arrive."""

    def __init__(self, raw: io.RawIOBase, response: http.client.HTTPResponse) -> None:
        self.raw, self.response = raw, response
        self.arrived = self.before = 0
        self.since = time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self.raw.readinto(buffer)
        self.arrived += count or 0
        now, lately = time.monotonic(), self.arrived - self.before
        if now - self.since > SLOW_SECONDS:
            if lately < SLOW_BYTES:
                url = getattr(self.response, "url", None) or "the server"
                raise TooSlow(
                    f"{url} is too slow: {lately:,} bytes in {SLOW_SECONDS:g} s, {self.arrived:,} "
                    "in all"
                )
            self.since, self.before = now, self.arrived
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()
