"""Mutated study files, options and datasets: success, or exit code 2 and a line."""

import gzip
import random
import resource
import sys
import time
import tomllib
from collections import Counter
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
from forked import SECONDS, check, command, listing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import GRID, SEARCH
from tally import FULL
from tiny import SEARCH as TINY

from hpo.data import datasets as data
from hpo.data import inputs
from hpo.data.schema import Schema
from hpo.errors import InputError
from hpo.study import file as study_file
from hpo.study.config import Config, Seeds

MANY = settings(
    max_examples=1500 if FULL else 60,
    deadline=1000 * SECONDS,
    derandomize=not FULL,
    database=None,
    suppress_health_check=list(HealthCheck),
)
STUDIES = {path.stem: path.read_text() for path in study_file.shipped().values()}
STUDIES |= {"grid": GRID, "small-search": SEARCH, "tiny": TINY}
# What a value may be replaced by, as TOML has it: too big, nested, of another type, no TOML at all.
RAW = [
    "0", "-1", "1", "1.5", "true", "nan", "inf", "-inf", "1e308", "1e-320", "-0.0", "9" * 30,
    "9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 30_000, "''", '"relu"', '"\\u0000"', '"\\u202e"',
    '"' + "x" * 100_000 + '"', "'''\n\n'''", "2020-01-01", "10:00:00", "[]", "{}", "[[]]", "[1, 2]",
    '["a", 1]', "[nan]", "[true, false]", "[" * 2000 + "]" * 2000, "[" * 50,
    "{ low = 1, high = 0 }",
    "{ low = 1 }", "{ low = 'a', high = [] }", "{ low = 1, high = 1e999, log = true }",
    "{ low = 0, high = 1, log = true }", "{ low = 1, high = 100, step = 0 }", "{ a.b.c.d = 1 }",
    '"<script>alert(1)</script>"', '"../../x"', "é", "= =", "#", '"[/b]"', '"$x^{"', "{}\n.a" * 9,
    f"{{ {'a.' * 2000}a = 1 }}", "{ a = " * 400 + "1" + " }" * 400, '"' + "\\u001b[2J" * 50 + '"',
]  # fmt: skip
BYTES = [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"]", b'"', b"\xc3", b"\r", b"\x7f" * 100]


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
    if rng.random() < 0.1:
        at = rng.randrange(len(content) + 1)
        content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    if rng.random() < 0.05:
        other = rng.choice(["utf-16", "utf-32", "cp037", "utf-8-sig"])
        content = content.decode(errors="replace").encode(other, errors="replace")
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
    rng, outcomes, valid = random.Random(1), Counter(), []
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
    runs = Counter(run(content, folder) for content in valid[:: len(valid) // amount(1, 20)])
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
    arguments = ["run", "valid.toml", "--dataset", "mnist-5k", "--workers", "1", "--timeout", "1"]
    ended = command([*arguments, "--fresh", "--yes"], folder, 60)
    return check(ended, content)


# --- options -----------------------------------------------------------------------------------

NUMBERS = [
    "1", "0", "-1", "2", "1e9", "1e308", "nan", "inf", "-inf", "", "x", "1.5", "9" * 400, "٣",
    "0x1", "2000000", "1_0", " 1", "9" * 5000,
]  # fmt: skip
STUDY = ["study.toml", "study", "grid-report", "noise"]
NAMES = [
    *STUDY, "none.toml", "", ".", "..", "../x", "a/b", "é", "x" * 300, "<b>", "a b", "-x", "--",
    "a\nb", "con.finalists", "\udcff", "cwd", ".hidden", "$(touch x)", "\x1b[2J", "[/b]",
    "postgresql://u:p@h/x",
]  # fmt: skip
PATHS = [
    "out", ".", "study.toml", "study.toml/x", "a/b/c", "x" * 300, "é", "", "a\nb", "--", "\udcff",
    "\x1b[31m", "x/../../cwd/out", "~", "a" * 5000, "/dev/null", "/proc/x",
]  # fmt: skip
URLS = [
    "sqlite:///hpo.db", "sqlite:///study.toml", "sqlite:///", "sqlite://", "sqlite:///a/b.db", "",
    "journal:///hpo.log", "journal:///study.toml", "journal://", "hpo.db", "postgresql://", "a\nb",
    "x" * 500, "mysql://u:p@127.0.0.1:1/x", "redis://127.0.0.1", "://", "é://é", "sqlite:///.",
    "sqlite:///hpo.db?mode=x", "sqlite+nothing:///x", "postgresql://[::1/x", "sqlite:///\udcff.db",
    "journal:///.", "file:///etc/passwd", "sqlite:///file:hpo.db?uri=true",
    "sqlite:///hpo.db?timeout=x", "sqlite:///hpo.db?isolation_level=x", "sqlite+aiosqlite:///x",
    "journal:///hpo.log?x=y", "sqlite:////proc/x.db", "sqlite:///hpo.db#x", "sqlite:///%00.db",
    "postgresql://u:p w@127.0.0.1:1/x", "postgresql://u:p@127.0.0.1:99999999/x",
    "postgresql://u:p@127.0.0.1:1/x?connect_timeout=x", "postgresql://u:p@127.0.0.1:1/x?a=1",
    "postgresql+psycopg://u:p@/x?host=/nowhere", "mssql+pyodbc://x", "oracle://x", "rdb://",
    f"sqlite:///{'x' * 300}.db", f"sqlite:///hpo.db?x={'y' * 5000}", "sqlite:///\x1b.db",
    "sqlite:///:memory:", "journal:///hpo.log\udcff", f"journal:///{'x' * 300}", "postgresql:///x",
]  # fmt: skip
HOSTS = ["127.0.0.1", "", "x" * 300, "a..b", "é", "a\nb", "[::1", "::1", "256.1.1.1", "0x7f000001"]
WORDS = [
    "tpe", "random", "gp", "cmaes", "qmc", "none", "median", "hyperband", "sha", "mnist-5k",
    "mnist", "kmnist", "auto", "cpu", "cuda", "mps", "", "x" * 1000, "[/b]",
]  # fmt: skip
RUN = {
    "--seeds": NUMBERS, "--trials": NUMBERS, "--sampler": WORDS,
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
    ("dashboard",): {
        "--storage": URLS, "--port": ["0", "70000", "-1", "x"], "--host": HOSTS,
        "--artifacts": PATHS,
    },
    ("nonsense",): {"--what": NAMES},
}  # fmt: skip


def combination(rng: random.Random) -> list[str]:
    """A command with options that do not let it train for long: there are small studies, large ones
    with --timeout 0, and a dataset that is not there, which a run notices late."""
    study = rng.choice(STUDY if rng.random() < 0.7 else NAMES)
    if rng.random() < 0.5:
        words, known = ["run", study], RUN
        limits = NUMBERS if study == "study.toml" else ["0", "0", "0", "-1", "nan", "-inf", "", "x"]
        words += ["--timeout", rng.choice(limits), "--quiet"]
        words += ["--dataset", "kmnist"] if rng.random() < (0.6 if FULL else 0.9) else []
    else:
        head = rng.choice(sorted(OTHERS))
        known = OTHERS[head]
        words = list(head)
        if head not in (("list",), ("dashboard",), ("data", "list")):
            words.append(study)
    for option in rng.sample(sorted(known), min(len(known), rng.choice([0, 1, 1, 2, 4]))):
        words += [option, rng.choice(known[option])]
    words += rng.choice([[], [], [], ["--fresh", "--yes"], ["--fresh"], ["extra"]])
    return words


def test_options_in_any_combination_succeed_or_are_refused(folder, amount, tally):
    (folder / "study.toml").write_text(GRID)
    rng, outcomes, count = random.Random(1), Counter(), amount(15, 400)
    around = listing(folder.parent) - listing(folder)
    slowest = 0.0
    for _ in range(count):
        arguments = combination(rng)
        started = time.monotonic()
        ended = command(arguments, folder, 60)
        outcome = check(ended, arguments)
        outcomes[outcome] += 1
        slowest = max(slowest, time.monotonic() - started if outcome == "refused" else 0.0)
    assert slowest < SECONDS
    left = listing(folder.parent) - listing(folder) - around
    assert left <= {folder.parent / "stdout", folder.parent / "stderr"}, "files outside"
    assert outcomes["refused"] > count / 3
    tally(
        "6.3", "commands with options and arguments at random", count,
        f"{outcomes['refused']:,} refused in a line, {outcomes['success']:,} done; the slowest "
        f"refusal {slowest:.1f} s; no file outside the folders named",
    )  # fmt: skip


ONCE_WRONG = [
    ["data", "list", "--data-dir", "\udcff"], ["list", "--storage", "sqlite:///hpo.db?x=1"],
    ["run", "study.toml", "--seeds", "9" * 400], ["run", "study.toml", "--workers", "9" * 5000],
    ["run", "study.toml", "--seeds", "2000000"], ["report", "\x1b[2J"], ["show", "a\nb"],
    ["dashboard", "--host", "a..b"], ["run", "study.toml", "--dataset", "x" * 9000],
]  # fmt: skip


@pytest.mark.parametrize("arguments", ONCE_WRONG, ids=range(len(ONCE_WRONG)))
def test_what_once_went_wrong_is_done_or_refused(folder, arguments):
    (folder / "study.toml").write_text(GRID)
    check(command(arguments, folder), arguments)


def test_a_run_into_a_folder_whose_name_is_no_text_has_its_report(full, folder):
    (folder / "study.toml").write_text(GRID)
    arguments = ["run", "study.toml", "--seeds", "1", "--out", "\udcff", "--artifacts", "\udcfe"]
    ended = command([*arguments, "--name", "odd", "--workers", "1"], folder, 60)
    assert check(ended, arguments) == "success"
    assert (folder / "\udcff" / "odd" / "index.html").is_file()
    assert "\\udcff" in (folder / "\udcff" / "odd" / "provenance.json").read_text()


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


SCHEMA = Schema(shape=(28, 28))


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small network's best/ folder."""
    import torch

    from hpo.training.network import Network
    from hpo.workers.worker import _packed

    config = Config(depth=1, width=8, activation="relu", optimizer="sgd", lr=0.1)
    network = Network(config, 784, 10, [Seeds.of(0)], torch.device("cpu"))
    about = {"study": "study", "trial": 0, "dataset": "mnist-5k", "dataset_checksum": "x"}
    schema = {"deviation" if k == "std" else k: v for k, v in SCHEMA.as_dict().items()}
    said = tomli_w.dumps({**about, "trained_on": 4, **schema, "config": config.as_dict()})
    return {"model.safetensors": _packed(network), "config.toml": said.encode()}


def pictures() -> dict[str, bytes]:
    """Images as predict takes them."""
    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    png, npz = BytesIO(), BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    np.savez(npz, images=pixels[None])
    idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (1, 28, 28)) + pixels.tobytes()
    found = {"a.png": png.getvalue(), "a.npz": npz.getvalue(), "a.idx": idx}
    return found | {"a.idx.gz": gzip.compress(idx, mtime=0), "b.npz": odd_arrays(pixels)}


def odd_arrays(pixels: np.ndarray) -> bytes:
    """An image beside objects (a pickle), text, and 200 MB of zeros packed small."""
    npz = BytesIO()
    np.savez_compressed(
        npz,
        image=pixels,
        objects=np.array([None, {}]),
        text=np.array(["a"]),
        bomb=np.zeros((50, 2000, 2000), np.uint8),
    )
    return npz.getvalue()


def own_files() -> dict[str, bytes]:
    """The user's own data, in files of each form."""
    frame = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40)[::-1], "label": ["x", "y"] * 20})
    npz, parquet = BytesIO(), BytesIO()
    np.savez(npz, x=frame[["a", "b"]].to_numpy(), y=np.arange(40) % 2)
    frame.to_parquet(parquet)
    csv = frame.to_csv(index=False).encode()
    found = {"d.npz": npz.getvalue(), "d.csv": csv, "d.csv.gz": gzip.compress(csv, mtime=0)}
    return found | {"d.parquet": parquet.getvalue()}


def test_damaged_data_of_the_users_own_are_read_or_refused(folder, amount, tally):
    rng, outcomes, count = random.Random(4), Counter(), amount(100, 4000)
    written = own_files()
    for _ in range(count):
        name = rng.choice(sorted(written))
        (folder / name).write_bytes(damaged(written[name], rng))
        try:
            loaded = data.load(str(folder / name), folder)
            data.check(loaded)
            outcomes["read"] += 1
        except InputError as error:
            outcomes["refused"] += 1
            for line in str(error).splitlines():
                assert line.startswith((str(folder / name), f"dataset {name!r}")), line
    assert outcomes["refused"] > count / 4
    tally(
        "6.6", "the user's own data in .npz, CSV and Parquet files, damaged", count,
        f"{outcomes['refused']:,} refused in a line, {outcomes['read']:,} still read",
    )  # fmt: skip


def test_damaged_networks_and_images_are_read_or_refused(best, folder, amount, tally):
    from hpo.model import weights as saved

    rng, outcomes, count = random.Random(3), Counter(), amount(100, 4000)
    files = best | pictures()
    for name, content in best.items():
        (folder / "best").mkdir(exist_ok=True)
        (folder / "best" / name).write_bytes(content)
    for _ in range(count):
        name = rng.choice(sorted(files))
        path = folder / "best" / name if name in best else folder / name
        path.write_bytes(damaged(files[name], rng))
        started = time.monotonic()
        try:
            saved.load(folder / "best") if name in best else inputs.read([path], SCHEMA)
            outcomes["read"] += 1
        except InputError as error:
            outcomes["refused"] += 1
            [line] = str(error).splitlines()
            assert line.startswith(f"{path.parent}/"), line
            assert len(line) < 2000, line
        assert time.monotonic() - started < SECONDS
        path.write_bytes(files[name])
    assert outcomes["refused"] > count / 4
    tally(
        "6.5", "a saved network, its config.toml, PNG, IDX and .npz images, damaged", count,
        f"{outcomes['refused']:,} refused in a line, {outcomes['read']:,} still read",
    )  # fmt: skip


def test_predict_answers_or_refuses_what_is_damaged(best, folder, amount, tally):
    rng, outcomes, count = random.Random(5), Counter(), amount(6, 200)
    known = pictures()
    (folder / "best").mkdir(exist_ok=True)
    for _ in range(count):
        target, image = rng.choice([*best, *known]), rng.choice(sorted(known))
        for name, content in {**best, image: known[image]}.items():
            path = folder / "best" / name if name in best else folder / name
            path.write_bytes(damaged(content, rng) if name == target else content)
        ended = command(["predict", "best", image], folder)
        outcomes[check(ended, (target, image))] += 1
    tally(
        "6.6", "`hpo predict` on such files", count,
        f"{outcomes['refused']:,} refused in a line, {outcomes['success']:,} answered",
    )  # fmt: skip


def test_memory_stayed_in_bounds():
    """No input above made this process or its forks take the machine."""
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    assert most < 4
