"""Mutated study files, options and datasets: success, or exit code 2 and a line."""

import gzip
import os
import random
import resource
import signal
import sys
import time
import tomllib
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import GRID, SEARCH
from tally import FULL

from hpo import cli, data, study_file
from hpo.config import Config
from hpo.errors import InputError

SECONDS = 10.0
MANY = settings(
    max_examples=1500 if FULL else 60,
    deadline=1000 * SECONDS,
    derandomize=not FULL,
    database=None,
    suppress_health_check=list(HealthCheck),
)
STUDIES = {path.stem: path.read_text() for path in study_file.shipped().values()}
STUDIES |= {"grid": GRID, "small-search": SEARCH}
# What a value may be replaced by, as TOML has it: too big, nested, of another type, no TOML at all.
RAW = [
    "0", "-1", "1", "1.5", "true", "nan", "inf", "-inf", "1e308", "1e-320", "-0.0", "9" * 30,
    "9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 30_000, "''", '"relu"', '"\\u0000"', '"\\u202e"',
    '"' + "x" * 100_000 + '"', "'''\n\n'''", "2020-01-01", "10:00:00", "[]", "{}", "[[]]", "[1, 2]",
    '["a", 1]', "[nan]", "[true, false]", "[" * 2000 + "]" * 2000, "[" * 50,
    "{ low = 1, high = 0 }",
    "{ low = 1 }", "{ low = 'a', high = [] }", "{ low = 1, high = 1e999, log = true }",
    "{ low = 0, high = 1, log = true }", "{ low = 1, high = 100, step = 0 }", "{ a.b.c.d = 1 }",
    '"<script>alert(1)</script>"', '"../../x"', "é", "= =", "#",
]  # fmt: skip
BYTES = [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"]", b'"', b"\xc3", b"\r", b"\x7f" * 100]


@dataclass
class Ended:
    """What a command left: its exit code (None: it hung), output and errors."""

    code: int | None
    out: str
    err: str


def command(arguments: list[str], folder: Path, seconds: float = SECONDS) -> Ended:
    """hpo with these arguments in `folder`, in a fork of this process: nothing is loaded anew."""
    out, err = folder.parent / "stdout", folder.parent / "stderr"
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            _become(arguments, folder, out, err)
        os._exit(99)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"))
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return Ended(None, out.read_text(errors="replace"), err.read_text(errors="replace"))


def _become(arguments: list[str], folder: Path, out: Path, err: Path) -> None:
    os.setsid()
    os.chdir(folder)
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
    os.close(0)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["hpo", *arguments]
    for name in [name for name in os.environ if name.startswith("HPO_")]:
        del os.environ[name]
    os.environ["TMPDIR"] = str(folder)
    import tempfile

    tempfile.tempdir = None
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
    assert ended.code in (0, 2), text
    if ended.code == 2:
        assert lines, text
        assert lines[0].startswith(("hpo: ", "NOTE: ")), text
        assert any(line.startswith("hpo: ") for line in lines), text
        assert all(len(line) < 2000 for line in lines), text
    return "refused" if ended.code else "success"


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# --- study files -------------------------------------------------------------------------------


def mutated(text: str, rng: random.Random) -> bytes:
    """A study file with a few things wrong with it, or right by chance."""
    lines = text.splitlines()
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        number = rng.randrange(len(lines))
        key, equals, _ = lines[number].partition("=")
        kind = rng.randrange(8)
        if kind < 4 and equals:
            lines[number] = f"{key}= {rng.choice(RAW)}"
        elif kind == 4:
            del lines[number]
        elif kind == 5:
            lines.insert(rng.randrange(len(lines)), lines[number])
        elif kind == 6 and equals:
            lines.insert(number, f"{key.strip()}x = {rng.choice(RAW)}")
        else:
            lines[number] = rng.choice(["[[cells]]", "[space]", "[base]", "[", "[[claims]]", ""])
        lines = lines or [""]
    content = "\n".join(lines).encode()
    if rng.random() < 0.25:
        at = rng.randrange(len(content) + 1)
        content = content[:at] + rng.choice(BYTES) + content[at + rng.choice([0, 1, 50]) :]
    if rng.random() < 0.05:
        content = content.decode(errors="replace").encode(rng.choice(["utf-16", "utf-32", "cp037"]))
    return content


def load(path: Path) -> study_file.StudyFile | None:
    """None where it is refused, in lines that can be read."""
    started, found, refusal = time.monotonic(), None, ""
    try:
        found = study_file.load(str(path))
    except InputError as error:
        refusal = str(error)
    assert time.monotonic() - started < SECONDS
    lines = refusal.splitlines()
    assert found or lines
    for line in lines:
        assert str(path) in line, line[:500]
        assert len(line) < 2000, line[:500]
    return found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
).filter(lambda value: value is not None)


def places(table: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to everything in a document."""
    found = [at] if at else []
    items = table.items() if isinstance(table, dict) else ()
    for key, value in enumerate(table) if isinstance(table, list) else items:
        found += places(value, (*at, key))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("input") / "cwd"
    made.mkdir()
    return made


@MANY
@given(st.sampled_from(sorted(STUDIES)), st.data())
def test_a_document_with_any_value_in_any_place_is_read_or_refused(folder, name, drawn):
    document = tomllib.loads(STUDIES[name])
    *way, last = drawn.draw(st.sampled_from(places(document)))
    table: Any = document
    for key in way:
        table = table[key]
    table[last] = drawn.draw(VALUES)
    path = folder / "drawn.toml"
    with suppress(TypeError, ValueError):  # what TOML cannot say
        path.write_bytes(tomli_w.dumps(document).encode("utf-8", "surrogatepass"))
    load(path) if path.exists() else None


def test_mutated_study_files_are_read_or_refused(folder, amount, tally):
    rng, outcomes, valid = random.Random(0), Counter(), []
    path = folder / "mutated.toml"
    count = amount(150, 5000)
    before = listing(folder)
    for _ in range(count):
        name = rng.choice(sorted(STUDIES))
        content = mutated(STUDIES[name], rng)
        path.write_bytes(content)
        try:
            found = load(path)
        except BaseException:
            sys.stderr.write(f"{content[:3000]!r}\n")
            raise
        outcomes["refused" if found is None else "valid"] += 1
        valid += [content] if found and small(found) and content != STUDIES[name].encode() else []
    assert listing(folder) <= before | {path}
    assert outcomes["valid"] > count / 20
    runs = Counter(run(content, folder) for content in valid[:: len(valid) // amount(1, 40)])
    tally(
        "6.1", "study files mutated in values, lines, bytes, encoding", count,
        f"{outcomes['refused']:,} refused in a line, {outcomes['valid']:,} valid; of these "
        f"{runs.total()} run: {runs['success']} to a report, {runs['refused']} refused",
    )  # fmt: skip
    drawn = MANY.max_examples
    tally("6.2", "study files with any value (hypothesis) in any place", drawn, "read or refused")


def small(study: study_file.StudyFile) -> bool:
    """Whether it is trained in a moment."""
    if isinstance(study, study_file.GridStudy):
        configs = [cell.config for cell in study.cells]
        size = len(configs) * study.seeds
        return size < 20 and all(c.epochs < 6 and c.width * c.depth < 300 for c in configs)
    fast = study.space.get("epochs"), study.space.get("width"), study.space.get("depth")
    words = [str(domain) for domain in fast]
    return study.finalists * study.finalist_seeds < 20 and words == SMALL


SMALL = [
    str(study_file.parse(tomllib.loads(SEARCH), "x", "x").space[key])
    for key in ("epochs", "width", "depth")
]


def run(content: bytes, folder: Path) -> str:
    (folder / "valid.toml").write_bytes(content)
    arguments = ["run", "valid.toml", "--dataset", "mnist-5k", "--workers", "1", "--timeout", "2"]
    ended = command([*arguments, "--fresh", "--yes"], folder, 60)
    return check(ended, content)


# --- options -----------------------------------------------------------------------------------

NUMBERS = ["1", "0", "-1", "2", "1e9", "nan", "inf", "-inf", "", "x", "1.5", "9" * 400, "٣", "0x1"]
NAMES = [
    "grid", "noise", "grid-report", "study.toml", "none.toml", "", ".", "..", "../x", "a/b", "é",
    "x" * 300, "<b>", "a b", "-x", "--", "a\nb", "con.finalists", "\udcff", "cwd", ".hidden",
]  # fmt: skip
PATHS = ["out", ".", "study.toml", "study.toml/x", "a/b/c", "x" * 300, "é", "", "a\nb", "--"]
URLS = [
    "sqlite:///hpo.db", "sqlite:///study.toml", "sqlite:///", "sqlite://", "sqlite:///a/b.db", "",
    "journal:///hpo.log", "journal:///study.toml", "journal://", "hpo.db", "postgresql://",
    "x" * 500,
    "postgresql://u:p@127.0.0.1:1/x", "mysql://u:p@127.0.0.1:1/x", "redis://127.0.0.1", "://", "é://é",
    "sqlite:///.", "sqlite:///hpo.db?mode=x", "sqlite+nothing:///x", "postgresql://[::1/x", "a\nb",
    "sqlite:///\udcff.db", "journal:///.", "file:///etc/passwd",
]  # fmt: skip
WORDS = ["tpe", "random", "none", "median", "mnist-5k", "mnist", "auto", "cpu", "cuda", "mps", ""]
RUN = {
    "--seeds": NUMBERS, "--trials": NUMBERS, "--timeout": NUMBERS, "--sampler": WORDS,
    "--sampler-seed": NUMBERS, "--pruner": WORDS, "--workers": NUMBERS, "--dataset": WORDS,
    "--data-dir": PATHS, "--storage": URLS, "--out": PATHS, "--name": NAMES, "--device": WORDS,
    "--artifacts": PATHS, "--epoch-limit": NUMBERS,
}  # fmt: skip
OTHERS: dict[tuple[str, ...], dict[str, list[str]]] = {
    ("report",): {"--storage": URLS, "--out": PATHS, "--name": NAMES},
    ("show",): {"--storage": URLS, "--name": NAMES},
    ("list",): {"--storage": URLS},
    ("compare", "grid"): {"--storage": URLS},
    ("predict", "best"): {},
    ("data", "get"): {"--data-dir": PATHS},
    ("data", "list"): {"--data-dir": PATHS},
    ("dashboard",): {"--storage": [*URLS[1:3], "sqlite:///none.db"], "--port": NUMBERS},
    ("nonsense",): {"--what": NAMES},
}


def combination(rng: random.Random) -> list[str]:
    """A command with options that do not let it train for long: what is sound is refused by
    --timeout 0 or a study that is not there."""
    if rng.random() < 0.5:
        words, known = ["run", rng.choice(NAMES)], RUN
        words += ["--timeout", "0", "--quiet"]
    else:
        head = rng.choice(sorted(OTHERS))
        known = OTHERS[head]
        words = list(head)
        if head not in (("list",), ("dashboard",), ("data", "list")):
            words.append(rng.choice(NAMES))
    for option in rng.sample(sorted(known), min(len(known), rng.choice([0, 1, 1, 2, 4]))):
        words += [option, rng.choice(known[option])]
    words += rng.choice([[], [], [], ["--fresh", "--yes"], ["--fresh"], ["extra"]])
    return words


def test_options_in_any_combination_succeed_or_are_refused(folder, amount, tally):
    (folder / "study.toml").write_text(GRID)
    rng, outcomes, count = random.Random(1), Counter(), amount(15, 1000)
    around = listing(folder.parent) - listing(folder)
    slowest = 0.0
    for _ in range(count):
        arguments = combination(rng)
        started = time.monotonic()
        ended = command(arguments, folder, 30 if "mnist" in arguments else SECONDS)
        slowest = max(slowest, time.monotonic() - started)
        outcomes[check(ended, arguments)] += 1
    left = listing(folder.parent) - listing(folder) - around
    assert left <= {folder.parent / "stdout", folder.parent / "stderr"}, "files outside"
    assert outcomes["refused"] > count / 3
    tally(
        "6.3", "commands with options and arguments at random", count,
        f"{outcomes['refused']:,} refused in a line, {outcomes['success']:,} done; the slowest "
        f"{slowest:.1f} s; no file outside the folders named",
    )  # fmt: skip


# --- datasets and images -----------------------------------------------------------------------


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, cut, doubled."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 20])):
        at = rng.randrange(max(len(changed), 1))
        kind = rng.randrange(4)
        if kind == 0 and changed:
            changed[min(at, rng.choice([at, 16])) % len(changed)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.choice([1, 4, 1000]))
        else:
            del changed[at : at + rng.choice([1, 8, 100])]
    return bytes(changed)


def test_damaged_datasets_are_read_or_refused(small_mnist, tmp_path, amount, tally):
    rng, outcomes, count = random.Random(2), Counter(), amount(60, 1000)
    for _ in range(count):
        packed = rng.random() < 0.5
        raw = small_mnist.write(tmp_path / "MNIST" / "raw", packed=packed)
        for path in rng.sample(sorted(raw.iterdir()), rng.choice([1, 1, 2])):
            content = damaged(path.read_bytes(), rng)
            if packed and rng.random() < 0.3:  # sound outside, wrong within
                content = gzip.compress(damaged(gzip.decompress(path.read_bytes()), rng), mtime=0)
            path.write_bytes(content)
        try:
            data.load("mnist", tmp_path)
            outcomes["as it was"] += 1
        except InputError as error:
            outcomes["refused"] += str(tmp_path) in str(error)
        for path in raw.iterdir():
            path.unlink()
    assert outcomes.total() == count
    assert outcomes["refused"] > 0.9 * count
    tally(
        "6.4", "IDX files of a dataset, plain and .gz, damaged", count,
        f"{outcomes['refused']:,} refused in a line, {outcomes['as it was']} not changed after all",
    )  # fmt: skip


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small network's best/ folder."""
    import torch

    from hpo import saved
    from hpo.best import said_of
    from hpo.network import Network

    config = Config(depth=1, width=8, activation="relu", optimizer="sgd", lr=0.1)
    network = Network([784, 8, 10], "relu", [torch.Generator()], torch.device("cpu"))
    about = {"name": "mnist-5k", "checksum": "x", "features": 784, "train": 3, "valid": 1}
    said = tomli_w.dumps(said_of("study", 0, config, about))
    return {"model.safetensors": saved.packed(network), "config.toml": said.encode()}


def pictures() -> dict[str, bytes]:
    """Images as predict takes them."""
    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    png, npz = BytesIO(), BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    np.savez(npz, images=pixels[None])
    idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (1, 28, 28)) + pixels.tobytes()
    return {"a.png": png.getvalue(), "a.npz": npz.getvalue(), "a.idx": idx}


def test_damaged_networks_and_images_are_read_or_refused(best, folder, amount, tally):
    rng, outcomes, count = random.Random(3), Counter(), amount(40, 1000)
    images = pictures()
    for _ in range(count):
        (folder / "best").mkdir(exist_ok=True)
        target = rng.choice([*best, *images])
        for name, content in best.items():
            broken = damaged(content, rng) if name == target else content
            (folder / "best" / name).write_bytes(broken)
        image = target if target in images else rng.choice(sorted(images))
        broken = damaged(images[image], rng) if image == target else images[image]
        (folder / image).write_bytes(broken)
        ended = command(["predict", "best", image], folder)
        outcomes[check(ended, (target, image))] += 1
    assert outcomes["refused"] > count / 4
    tally(
        "6.5", "a saved network, its config.toml, PNG, IDX and .npz images, damaged", count,
        f"{outcomes['refused']:,} refused in a line, {outcomes['success']:,} still read",
    )  # fmt: skip


def test_memory_stayed_in_bounds():
    """No input above made this process or its forks take the machine."""
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    assert most < 4
