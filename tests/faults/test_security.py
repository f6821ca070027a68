"""Nothing from disk is run, nothing typed reaches a shell, no password is written down."""

import ast
import os
import pickle
import subprocess
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from scenes import GRID, HPO, SEARCH, check_grid

import hpo
from hpo import study_file
from hpo.errors import InputError

PASSWORD = "s3cr3t-w0rd"
SOURCES = sorted(Path(hpo.__file__).parent.glob("*.py"))
# What runs code that data may hold, or hands text to a shell.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "joblib.load",
    "pandas.read_pickle", "pd.read_pickle", "np.load", "numpy.load", "marshal.loads", "shelve.open",
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
            assert ast.unparse(node.func) not in FORBIDDEN, f"{path.name}:{node.lineno}"
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


def test_a_pickle_in_the_storage_is_not_opened(stage, tmp_path, full, tally):
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


def words_in(engine: sqlalchemy.Engine) -> str:
    """Everything that a database holds."""
    tables = sqlalchemy.inspect(engine).get_table_names()
    with engine.connect() as connection:
        rows = [connection.exec_driver_sql(f'SELECT * FROM "{table}"').all() for table in tables]
    return repr(rows)


def test_a_password_is_written_nowhere(stage, tmp_path, full, postgres, tally):
    url = sqlalchemy.make_url(postgres("secrets")).set(password=PASSWORD)
    url = url.render_as_string(hide_password=False)
    scene = stage(GRID, url)
    said = scene.whole("--seeds", "1") + scene.whole("--seeds", "2", HPO_DEBUG="1")
    for command in (["show", "study"], ["report", "study"], ["list"]):
        answer = subprocess.run(
            [*HPO, *command, "--storage", url], cwd=tmp_path, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        said += answer.stdout + answer.stderr
    wrong = url.replace("/secrets", "/nothing"), url.replace("postgresql:", "postgresql+no:")
    for other in wrong:
        answer = subprocess.run(
            [*HPO, "run", "study.toml", "--storage", other], cwd=tmp_path, capture_output=True,
            text=True, check=False, env={**os.environ, "HPO_DEBUG": "1"},
        )  # fmt: skip
        assert answer.returncode == 2, answer
        said += answer.stdout + answer.stderr
    assert PASSWORD not in said
    assert "***" in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    engine = sqlalchemy.create_engine(url)
    stored = words_in(engine)
    engine.dispose()
    assert PASSWORD not in stored
    assert "postgres:***@" in stored, "the command is kept, without it"
    check_grid(scene.trials(), 3, 2)
    tally(
        "7.3", "a storage URL with a password: two runs, show, report, list, two wrong URLs, "
        "HPO_DEBUG=1", 7, f"in no output, none of {len(files)} files, no table of the database",
    )  # fmt: skip


HOSTILE = [
    "../../escaped", "/etc/passwd", "..", ".hidden", "a/b", "a\\b", "<script>x</script>", "a b", "",
    "x" * 101, "nul\0", "line\nbreak", "-rf", "$(touch x)", "`touch x`", "a;b", "é", "con..x",
]  # fmt: skip


def test_names_form_no_paths(stage, tmp_path, tally):
    scene = stage(GRID)
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    for name in HOSTILE:
        with pytest.raises(InputError, match=r"^study name "):
            study_file.check_name(name)
    for name in HOSTILE[:3]:
        output = scene.whole(f"--name={name}", code=2)
        assert output.startswith("hpo: study name "), output
    for name in HOSTILE[:-1]:
        quoted = "".join(f"\\u{ord(letter):04x}" for letter in name)
        (tmp_path / "study.toml").write_text(GRID.replace('"narrow"', f'"{quoted}"'))
        with pytest.raises(InputError, match=r"cells\[0\].name: must be letters"):
            study_file.load(str(tmp_path / "study.toml"))
    assert {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents} == before
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]
    tally("7.4", "hostile names for studies and cells", 2 * len(HOSTILE) - 1, "refused; no file")


def test_titles_and_texts_are_text_in_the_page(stage, tmp_path, full, tally):
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}]]>"
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in hostile)
    text = GRID.replace('title = "Grid"', f'title = "{escaped}"\ntext = "{escaped}"')
    text += (
        f'\n[[experiments]]\ntitle = "{escaped}"\ntext = "{escaped}"\ncells = ["narrow", "wide"]\n'
    )
    scene = stage(text)
    scene.whole("--seeds", "2")
    page = (tmp_path / "reports/study/index.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page.replace("&#39;", "'"), "and no template"
    tally("7.5", "titles and texts with scripts, handlers, template code", 4, "text in the page")
