"""Downloads a dataset by torchvision, within 10 seconds of silence and without half files."""

import http.client
import queue
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpo.errors import InputError

NO_ANSWER_SECONDS = 10.0


class Unavailable(InputError):  # noqa: N818
    """The dataset is not on disk and cannot be downloaded."""


def download(name: str, torchvision_class: str, missing: Sequence[str], folder: Path) -> None:
    """Downloads a dataset to `folder` by a class of torchvision.datasets, which checks the files.

    missing: the files that are not there, for the message. Raises Unavailable if no server answers
    within 10 seconds, and if `folder` cannot be written.
    """
    import torchvision.datasets

    dataset = getattr(torchvision.datasets, torchvision_class)
    reason = f"{name}: {', '.join(missing)} not in {folder / torchvision_class / 'raw'}"
    answering = _first_to_answer(dataset.mirrors, NO_ANSWER_SECONDS)
    if answering is None:
        raise Unavailable(f"{reason}, and no server answers; give --data-dir or HPO_DATA_DIR")
    # torchvision gives up at a mirror that keeps silent: the one that answered comes first.
    mirrors = sorted(dataset.mirrors, key=lambda url: bool(url != answering))
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NO_ANSWER_SECONDS)
    try:
        _download(type(dataset.__name__, (dataset,), {"mirrors": mirrors}), folder)
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise Unavailable(f"{reason}, and downloading failed: {cause}") from error
    finally:
        socket.setdefaulttimeout(before)


def _download(dataset: Any, folder: Path) -> None:
    """Downloads beside the place and moves the files at the end: a kill leaves no half file."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as temporary:
        dataset(temporary, train=True, download=True)
        raw = folder / dataset.__name__ / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for file in (Path(temporary) / dataset.__name__ / "raw").iterdir():
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
