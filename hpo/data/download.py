"""Downloads a dataset by torchvision, within 10 seconds of silence and without half files."""

import http.client
import queue
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import InputError

NO_ANSWER_SECONDS = 10.0


class Unavailable(InputError):  # noqa: N818
    """The dataset is not on disk and cannot be downloaded."""


def download(
    name: str,
    torchvision_class: str,
    downloads: Sequence[Mapping[str, Any]],
    missing: Sequence[str],
    files: Sequence[str],
    folder: Path,
) -> None:
    """Downloads a dataset to `folder` by a class of torchvision.datasets, which checks the files.

    downloads: the arguments of the class, once for each download. missing: the files that are not
    there, for the message. files: those that are kept, plain or as .gz. Raises Unavailable if no
    server answers within 10 seconds, and if `folder` cannot be written.
    """
    import torchvision.datasets

    dataset = getattr(torchvision.datasets, torchvision_class)
    reason = f"{name}: {', '.join(missing)} not in {folder / torchvision_class / 'raw'}"
    mirrors = _mirrors(dataset)
    answering = _first_to_answer(mirrors, NO_ANSWER_SECONDS)
    if answering is None:
        raise Unavailable(f"{reason}, and no server answers; give --data-dir or HPO_DATA_DIR")
    # torchvision gives up at a mirror that keeps silent: the one that answered comes first.
    mirrors = sorted(mirrors, key=lambda url: bool(url != answering))
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NO_ANSWER_SECONDS)
    try:
        own = type(dataset.__name__, (dataset,), {"mirrors": mirrors})
        _download(own, downloads, files, folder)
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise Unavailable(f"{reason}, and downloading failed: {cause}") from error
    finally:
        socket.setdefaulttimeout(before)


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
    for _ in mirrors:
        try:
            answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        if answer:
            return answer
    return None
