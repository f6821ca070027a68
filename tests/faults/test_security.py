"""Nothing from disk is run, nothing typed reaches a shell, no password is written down."""

import ast
import inspect
import os
import pickle
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import optuna
import pytest
import sqlalchemy
import torch
from conftest import Postgres
from elements import Elements
from forked import check, command
from hypothesis import given
from hypothesis import strategies as st
from scenes import GRID, HPO, SEARCH, check_grid
from test_input import MANY, pictures
from test_predict import network, write
from test_report import store

import hpo
from hpo import cli, passwords
from hpo.data.catalog import NAMES
from hpo.errors import InputError
from hpo.report import write as report
from hpo.study import file as study_file
from hpo.watch import dashboard

PASSWORD = "s3cr3t@zw0rd/$xkcd q7q7q"
SOURCES = sorted(Path(hpo.__file__).parent.rglob("*.py"))
# What runs code that data may hold, or hands text to a shell.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "joblib.load",
    "pandas.read_pickle", "pd.read_pickle", "marshal.loads", "shelve.open",
    "pickle.load", "pickle.loads", "yaml.load", "subprocess.getoutput",
}  # fmt: skip


def test_no_module_unpickles_evaluates_or_calls_a_shell(tally):
    calls = 0
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}, path
            if not isinstance(node, ast.Call):
                continue
            calls += 1
            function = ast.unparse(node.func)
            assert function not in FORBIDDEN, f"{path.name}:{node.lineno}"
            if function in ("np.load", "numpy.load"):
                assert "allow_pickle" in {k.arg for k in node.keywords}, f"{path}:{node.lineno}"
            for keyword in node.keywords:
                text = ast.unparse(keyword.value)
                assert keyword.arg != "shell", f"{path.name}:{node.lineno}"
                assert keyword.arg != "allow_pickle" or text == "False", (
                    f"{path.name}:{node.lineno}"
                )
    tally(
        "7.1", f"calls in {len(SOURCES)} modules read for unpickling, eval, shells", calls, "none"
    )


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_the_storage_is_not_opened(full, stage, tmp_path, tally):
    """CMA-ES keeps its state pickled in trials' attributes; here a stranger wrote them."""
    scene = stage(SEARCH.replace("n_trials = 30", 'n_trials = 4\nsampler = "cmaes"'))
    text = (tmp_path / "study.toml").read_text()
    for choices in ('activation = ["relu", "tanh"]', 'optimizer = ["sgd", "adam"]'):
        text = text.replace(choices, choices.split("[")[0] + '"' + choices.split('"')[1] + '"')
    (tmp_path / "study.toml").write_text(text)
    scene.whole()
    sprung = tmp_path / "sprung"
    state = pickle.dumps(Trap(sprung)).hex()
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'hpo.db'}")
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'hpo.db'}")
    with engine.begin() as connection:
        for trial in study.trials:
            for key in ("cma:optimizer:0", "cma:optimizer", "cma:1:optimizer:0"):
                connection.execute(
                    sqlalchemy.text(
                        "INSERT INTO trial_system_attributes (trial_id, key, value_json) "
                        "VALUES (:trial, :key, :state)"
                    ),
                    {"trial": trial._trial_id, "key": key, "state": f'"{state}"'},
                )
    engine.dispose()
    scene.whole("--trials", "8")
    assert scene.finished() == 8
    assert not sprung.exists()
    pickle.loads(bytes.fromhex(state))
    assert sprung.is_dir(), "the trap works"
    tally("7.2", "pickled sampler states planted in a storage", len(study.trials) * 3, "not opened")


def test_a_pickle_in_place_of_a_dataset_a_network_or_an_image_is_not_opened(tmp_path, tally):
    """As pickle and torch.save write it, under every name that is read."""
    folder, sprung = tmp_path / "cwd", tmp_path / "sprung"
    torch.save({"0.weight": Trap(sprung)}, tmp_path / "archive")
    contents = [pickle.dumps(Trap(sprung)), (tmp_path / "archive").read_bytes()]
    raw = [f"MNIST/raw/{name}{end}" for name in NAMES for end in ("", ".gz")]
    legacy = ["MNIST/processed/training.pt", "MNIST/processed/test.pt"]
    named = ["best/config.toml", "best/model.safetensors", "a.png", "a.npz", "a.idx", "hpo.log"]
    for path in map(folder.joinpath, (*raw, *legacy, *named, "study.toml")):
        path.parent.mkdir(parents=True, exist_ok=True)
    commands = [
        ["data", "get", "mnist", "--data-dir", "."], ["predict", "best", "a.png", "a.npz", "a.idx"],
        ["run", "study.toml"], ["list", "--storage", "journal:///hpo.log"],
    ]  # fmt: skip
    for content in contents:
        for name in (*raw, *legacy, *named, "study.toml"):
            (folder / name).write_bytes(content)
        for arguments in commands:
            assert check(command(arguments, folder), arguments) == "refused"
        write(folder / "best", network())
        assert check(command(commands[1], folder), "sound, but for the images") == "refused"
        for name, sound in pictures().items():
            (folder / name).write_bytes(sound)
        assert check(command(commands[1], folder), "sound") == "success"
        (folder / "best/model.safetensors").write_bytes(content)
        assert check(command(commands[1], folder), "sound, but for the weights") == "refused"
    assert not sprung.exists()
    torch.load(tmp_path / "archive", weights_only=False)
    assert sprung.is_dir(), "the trap works"
    files = len(contents) * (len(raw) + len(legacy) + len(named) + 1)
    tally(
        "7.6", "pickles under the names of datasets, networks, images, journals", files, "unopened"
    )


# --- passwords ---------------------------------------------------------------------------------

# Pieces that nothing else contains, between signs that mean something in a URL or to a shell.
PIECE = st.text("bcdfgjkqvwxz", min_size=7, max_size=9)
SIGNS = st.lists(
    st.sampled_from([*"@/:?#&=%+$!'\"\\ ;,[]{}<>|*~é", "", "%40"]), min_size=0, max_size=3
)
SCHEMES = st.sampled_from(
    ["postgresql", "postgresql+psycopg", "mysql", "redis", "nonsense", "sqlite", "journal", "é"]
)
FORMS = st.sampled_from(
    [
        "{scheme}://me:{password}@127.0.0.1:1/db", "{scheme}://me:{quoted}@127.0.0.1:1/db",
        "{scheme}://:{password}@127.0.0.1/0", "{scheme}://me:{password}@127.0.0.1:port/db",
        "{scheme}://my self:{password}@/db?host=/nowhere", "{scheme}://me:{quoted}/db",
        "{scheme}://127.0.0.1:1/db?user=me&password={quoted}", "{scheme}://me:{quoted}",
        "{scheme}:///db?host=127.0.0.1&port=1&PASSWORD={quoted}&sslpassword={quoted}",
        "{scheme}://127.0.0.1:1/db?passwd={quoted}&x=1", "{scheme}://me:{password}@[::1/db",
    ]
)  # fmt: skip


@st.composite
def secret(draw: st.DrawFn) -> tuple[list[str], str]:
    """The pieces of a password, and a storage URL that holds it."""
    pieces = draw(st.lists(PIECE, min_size=1, max_size=3))
    password = "".join(piece + "".join(draw(SIGNS)) for piece in pieces)
    scheme = draw(SCHEMES)
    form = draw(FORMS)
    return pieces, form.format(scheme=scheme, password=password, quoted=quote(password, safe=""))


def leaks(pieces: list[str], text: str) -> list[str]:
    return [piece for piece in pieces if piece in text]


@MANY
@given(secret())
def test_no_form_of_a_password_is_shown(drawn):
    pieces, url = drawn
    for text in (passwords.without_password(url), passwords.without_password(f"--storage={url}")):
        assert not leaks(pieces, text), text
    driver = f'could not translate host name "{url.rpartition(":")[2]}": {url!r}, {url}'
    assert not leaks(pieces, passwords.remove_passwords(driver, url))


def test_no_password_of_a_url_that_fails_is_printed(tmp_path, amount, tally):
    """In lines and tracebacks; given as an option, by the environment, or in a wrong place."""
    folder, rng, outcomes = tmp_path / "cwd", random.Random(4), Counter()
    folder.mkdir()
    (folder / "study.toml").write_text(GRID)
    count, drawn = amount(8, 400), []

    @MANY
    @given(secret())
    def draw(found):
        drawn.append(found)

    draw()
    for pieces, url in (rng.choice(drawn) for _ in range(count)):
        command_line, env = rng.choice(
            [
                (["run", "study.toml", "--storage", url, "--timeout", "0"], {}),
                (["run", "study.toml", "--timeout", "0"], {"HPO_STORAGE": url}),
                (["list"], {"HPO_STORAGE": url}), (["show", "study", f"--storage={url}"], {}),
                (["dashboard", "--storage", url], {}), (["report", url], {}), (["run", url], {}),
                (["compare", "a", "b", "--storage", url], {}), (["show", "a", url], {}),
                (["run", "study.toml", "--dataset", url], {}),
                (["run", "study.toml", "--seeds", url], {}), (["run", "study.toml", url], {}),
            ]
        )  # fmt: skip
        ended = command(command_line, folder, HPO_DEBUG=rng.choice(["0", "1"]), **env)
        text = f"{command_line}\n{ended.out}\n{ended.err}"
        assert ended.code in (0, 1, 2) or "Ctrl-C" in ended.out, text
        assert not leaks(pieces, ended.out + ended.err), text
        outcomes[ended.code] += 1
    assert outcomes[2] > count / 2
    names = [path.name for path in folder.rglob("*")]
    assert not [name for pieces, _ in drawn for name in leaks(pieces, " ".join(names))]
    tally(
        "7.7", "storage URLs with passwords, in options, variables and wrong places, half of them "
        "with HPO_DEBUG=1", count, "in no line, no traceback",
    )  # fmt: skip


def words_in(engine: sqlalchemy.Engine) -> str:
    """Everything that a database holds."""
    tables = sqlalchemy.inspect(engine).get_table_names()
    with engine.connect() as connection:
        rows = [connection.exec_driver_sql(f'SELECT * FROM "{table}"').all() for table in tables]
    return repr(rows)


@pytest.fixture
def guarded(postgres: Postgres) -> Iterator[sqlalchemy.URL]:
    """A database that is not opened without the password."""
    url = sqlalchemy.make_url(postgres("secrets"))
    access = postgres.server.pgdata / "pg_hba.conf"
    rules = access.read_text()
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
        connection.exec_driver_sql("ALTER DATABASE secrets OWNER TO guest")
        access.write_text(f"local all guest scram-sha-256\n{rules}")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
        yield url.set(username="guest", password=PASSWORD)
        access.write_text(rules)
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()


def test_a_password_is_written_nowhere(full, stage, tmp_path, guarded, tally):
    url = guarded.render_as_string(hide_password=False)
    assert PASSWORD not in url, "quoted"
    scene = stage(GRID, url)
    said = scene.whole("--seeds", "1") + scene.whole("--seeds", "2", HPO_DEBUG="1")

    def more(*arguments: str, other: str = url, code: int = 0) -> str:
        answer = subprocess.run(
            [*HPO, *arguments, "--storage", other], cwd=tmp_path, capture_output=True, text=True,
            check=False, env={**os.environ, "HPO_DEBUG": "1"},
        )  # fmt: skip
        assert answer.returncode == code, answer
        return answer.stdout + answer.stderr

    for arguments in (
        ["show", "study"],
        ["report", "study"],
        ["list"],
        ["show", "study", "--watch"],
    ):
        said += more(*arguments)
    wrong = [
        guarded.set(password=f"{PASSWORD}x"), guarded.set(username="nobody"),
        guarded.set(database="nothing"), guarded.set(drivername="postgresql+no"),
        guarded.set(query={"host": str(tmp_path)}), guarded.set(host="127.0.0.1", port=1, query={}),
        guarded.set(host="no.such.host.invalid", query={}),
        guarded.update_query_dict({"sslmode": "never"}),
    ]  # fmt: skip
    for other in wrong:
        said += more("run", "study.toml", other=other.render_as_string(hide_password=False), code=2)
    written = re.split(r"\W+", PASSWORD)
    assert not leaks(written, said)
    assert "***" in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if leaks(written, path.read_text("latin-1"))]
    engine = sqlalchemy.create_engine(guarded)
    stored = words_in(engine)
    engine.dispose()
    assert not leaks(written, stored)
    assert "guest:***@" in stored, "the command is kept, without it"
    check_grid(scene.trials(), 3, 2)
    tally(
        "7.3", "a storage that wants a password: two runs, show, --watch, report, list, eight "
        "wrong URLs, HPO_DEBUG=1", 14,
        f"in no output, none of {len(files)} files, no table of the database",
    )  # fmt: skip


# --- names and texts ---------------------------------------------------------------------------

HOSTILE = [
    "../../escaped", "/etc/passwd", "..", ".hidden", "a/b", "a\\b", "<script>x</script>", "a b", "",
    "x" * 101, "nul\0", "line\nbreak", "-rf", "$(touch x)", "`touch x`", "a;b", "é", "con..x",
]  # fmt: skip


def test_names_form_no_paths(forked_hpo, tmp_path, tally):
    (tmp_path / "study.toml").write_text(GRID)
    streams = {tmp_path.parent / "stdout", tmp_path.parent / "stderr"}
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    for name in HOSTILE:
        with pytest.raises(InputError, match=r"^study name "):
            study_file.check_name(name)
    for name in HOSTILE[:3]:
        answer = forked_hpo("run", "study.toml", f"--name={name}")
        assert answer.code == 2
        assert answer.err.startswith("hpo: study name "), answer
    for name in HOSTILE[:-1]:
        quoted = "".join(f"\\u{ord(letter):04x}" for letter in name)
        (tmp_path / "study.toml").write_text(GRID.replace('"narrow"', f'"{quoted}"'))
        with pytest.raises(InputError, match=r"cells\[0\].name: must be letters"):
            study_file.load(str(tmp_path / "study.toml"))
    after = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    assert after - streams == before - streams
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]
    tally("7.4", "hostile names for studies and cells", 2 * len(HOSTILE) - 1, "refused; no file")


HOSTILE_TEXTS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "\"'>&{{ 7 * 7 }}]]>-->",
    "[/b] [x", "<svg onload=alert(3)>", "</title></style></script>", "javascript:alert(4)",
    "\x1b[2J\x00\u202e", "<iframe srcdoc='x'>", "&lt;script&gt;", "![x](javascript:x) <b>",
    "$\\frac{x$", "x" * 20_000,
]  # fmt: skip


def hostile(value, text: str):
    """A study file's document with `text` after everything that is said in words."""
    if isinstance(value, list):
        return [hostile(item, text) for item in value]
    if not isinstance(value, dict):
        return value
    words = ("title", "text", "source", "label", "says", "quote", "where")
    return {
        key: f"{item} {text}" if key in words else hostile(item, text)
        for key, item in value.items()
    }


TOLD = """
source = "a report"
text = "a text"
[[cells.reported]]
label = "a label"
test_accuracy = 0.9
[[experiments]]
title = "an experiment"
text = "a text"
cells = ["narrow", "wide", "hot"]
[[claims]]
says = "narrow fails"
quote = "a quote"
where = "1"
fails = "narrow"
[[claims]]
says = "narrow is better"
greater = ["narrow", "wide"]
[[causes]]
cell = "hot"
beside = "wide"
presumes = "learning rate too high"
quote = "a quote"
"""


def test_titles_texts_and_claims_are_text_in_pages_and_terminals(tmp_path, amount, tally):
    top, cells = TOLD.strip().split("[[cells", 1)
    (tmp_path / "told.toml").write_text(f"{top}{GRID}[[cells{cells}")
    plain = store(tmp_path, name="plain", file=str(tmp_path / "told.toml"))
    wanted = Elements(report.write(plain, tmp_path / "out").read_text()).found
    assert (wanted["script"], wanted["link outside"]) == (1, 4), "the links of the card to files"
    (tmp_path / "cwd").mkdir()
    texts = [" ".join(HOSTILE_TEXTS), *HOSTILE_TEXTS][: amount(1, 99)]
    drawn = ("g", "path", "use", "defs", "text", "title", "clippath", "rect")  # of pictures
    for number, text in enumerate(texts):
        raw = hostile(plain.file.raw, text)
        stored = store(tmp_path, name=f"a{number}", file=str(tmp_path / "told.toml"), raw=raw)
        page = Elements(report.write(stored, tmp_path / "out").read_text())
        assert {key for key in page.found - wanted if key not in drawn} == set(), text
        assert f"narrow fails {text}" in page.text or not text.isprintable(), "word for word"
        arguments = ["show", f"a{number}", "--storage", f"sqlite:///{tmp_path}/hpo.db"]
        ended = command(arguments, tmp_path / "cwd")
        assert check(ended, text) == "success"
        assert "\x1b" not in ended.out
    tally(
        "7.5", "titles, texts, labels, claims with scripts, handlers, markup, control characters",
        len(texts), "text in page and terminal",
    )  # fmt: skip


def test_the_dashboard_is_this_machines_alone_unless_told_otherwise(tmp_path):
    assert inspect.signature(cli.dashboard).parameters["host"].default == "127.0.0.1"
    assert dashboard.HOST == "127.0.0.1"
    for host in ("", "x" * 300, "a..b"):
        with pytest.raises(InputError, match="--host"):
            dashboard.listen(optuna.storages.InMemoryStorage(), tmp_path, host, 0, print)
