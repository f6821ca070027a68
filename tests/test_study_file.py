"""Study files: what the shipped ones say, and what a wrong one is told."""

import itertools
import json
import time
import tomllib
from pathlib import Path

import jsonschema
import pytest

from hpo.errors import InputError
from hpo.study import file as study_file
from hpo.study import schema
from hpo.study.file import COLUMNS, GridStudy, Reported, SearchStudy, load
from hpo.study.source import Source
from hpo.study.space import Choices, Fixed, Range

GRID = """
title = "Two widths"
dataset = "mnist-5k"
seeds = 3

[base]
depth = 1
width = 8
activation = "relu"
optimizer = "sgd"
lr = 0.1
epochs = 2

[[cells]]
name = "narrow"

[[cells]]
name = "wide"
width = 16
[[cells.reported]]
label = "Wide one"
test_accuracy = 0.95
test_loss = 0.2
train_seconds = 30.5
"""
SEARCH = """
[space]
depth = { low = 1, high = 4 }
width = [16, 32]
activation = "relu"
optimizer = ["sgd", "adam"]
lr = { low = 1e-4, high = 1.0, log = true }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def faults_of(path: Path, text: str) -> list[str]:
    """The lines of the InputError that the text as a study file is answered with."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load(str(path))
    return str(caught.value).splitlines()


def fault_of(path: Path, text: str) -> str:
    [line] = faults_of(path, text)
    return line


def grid_with(line: str) -> str:
    """GRID with one more line in its first cell."""
    return GRID.replace('name = "narrow"', f'name = "narrow"\n{line}')


# --- the shipped files -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grid-report", "noise", "search", "search-wide"])
def test_shipped_study_loads_by_name_and_by_path(name: str):
    by_name = load(name)
    assert by_name.name == name
    assert load(str(study_file.shipped()[name])) == by_name


def test_every_file_in_the_studies_folder_is_shipped():
    known = {"grid-report", "interactions", "noise", "precision", "search", "search-wide"}
    assert set(study_file.shipped()) == known


def test_grid_report_has_eight_distinct_configurations_and_nine_reported_networks():
    study = load("grid-report")
    assert isinstance(study, GridStudy)
    assert (study.dataset, study.seeds) == (Source("mnist"), 10)
    assert len({cell.config for cell in study.cells}) == len(study.cells) == 8
    reported = [figure for cell in study.cells for figure in cell.reported]
    assert len(reported) == 9
    assert (
        Reported(
            label="ReLU MLP (LR=0.1)", test_accuracy=0.9645, test_loss=0.1264, train_seconds=28.68
        )
        in reported
    )
    assert {len(cell.reported) for cell in study.cells if cell.name != "relu"} == {1}


def test_grid_report_cells_are_the_published_networks():
    study = load("grid-report")
    assert isinstance(study, GridStudy)
    rows = {
        cell.name: (c.depth, c.width, c.activation, c.optimizer, c.lr)
        for cell in study.cells
        for c in [cell.config]
    }
    assert rows == {
        "baseline": (2, 32, "sigmoid", "sgd", 0.1),
        "deeper": (6, 32, "sigmoid", "sgd", 0.1),
        "wider": (2, 512, "sigmoid", "sgd", 0.1),
        "tanh": (2, 32, "tanh", "sgd", 0.1),
        "relu": (2, 32, "relu", "sgd", 0.1),
        "adam": (2, 32, "relu", "adam", 0.1),
        "lr-1.0": (2, 32, "relu", "sgd", 1.0),
        "lr-0.01": (2, 32, "relu", "sgd", 0.01),
    }
    assert {(cell.config.batch_size, cell.config.epochs) for cell in study.cells} == {(64, 10)}


def test_grid_report_experiments_name_cells_and_columns_that_there_are():
    study = load("grid-report")
    assert isinstance(study, GridStudy)
    cells = {cell.name for cell in study.cells}
    assert {name for experiment in study.experiments for name in experiment.cells} == cells
    assert all(set(experiment.columns) <= set(COLUMNS) for experiment in study.experiments)


def test_search_space_reads_scalars_lists_and_tables_as_fixed_choices_and_ranges():
    study = load("search")
    assert isinstance(study, SearchStudy)
    assert (study.n_trials, study.timeout, study.sampler) == (100, 330, "tpe")
    assert study.space["lr"] == Range(low=1e-4, high=1.0, log=True)
    assert study.space["batch_size"] == Fixed(value=256)
    assert isinstance(study.space["optimizer"], Choices)


def test_the_schema_is_current_and_knows_the_shipped_files():
    stored = (study_file.studies_dir() / schema.FILE).read_text("utf-8")
    assert json.loads(stored) == json.loads(schema.text()), "python -m hpo.study.schema writes it"
    jsonschema.Draft202012Validator.check_schema(json.loads(stored))
    known = jsonschema.Draft202012Validator(json.loads(stored))
    for path in study_file.shipped().values():
        assert path.read_text("utf-8").startswith(f"#:schema ./{schema.FILE}\n")
        known.validate(tomllib.loads(path.read_text("utf-8")))
    [example] = (study_file.studies_dir() / "examples").glob("*.toml")
    known.validate(tomllib.loads(example.read_text("utf-8")))


def test_the_schema_knows_what_the_program_knows_of_shapes():
    known = jsonschema.Draft202012Validator(schema.json_schema())
    depth, width = "depth = { low = 1, high = 4 }", "width = [16, 32]"
    widths = SEARCH.replace(depth, "widths = [[16, 8], [32]]").replace(width, "")
    own = 'model = "nets:build"' + SEARCH.replace(depth, "channels = [4, 8]")
    for text in (widths, own):
        assert "depth" not in text
        known.validate(tomllib.loads(text))
    with pytest.raises(jsonschema.ValidationError):
        known.validate(tomllib.loads(own.removeprefix('model = "nets:build"')))


@pytest.mark.parametrize(
    ("old", "new"),
    [("width = 8", "width = 0"), ("seeds = 3", "seed = 3"), ('"relu"', '"swish"'), ("0.95", "95")],
)
def test_the_schema_refuses_what_the_program_refuses(old: str, new: str):
    known = jsonschema.Draft202012Validator(schema.json_schema())
    known.validate(tomllib.loads(GRID))
    known.validate(tomllib.loads(SEARCH))
    with pytest.raises(jsonschema.ValidationError):
        known.validate(tomllib.loads(GRID.replace(old, new)))


# --- a user's own ------------------------------------------------------------------------------


def test_grid_of_the_users_own_loads(path: Path):
    path.write_text(GRID, encoding="utf-8")
    study = load(str(path))
    assert isinstance(study, GridStudy)
    assert (study.name, study.title, study.dataset.name, study.seeds) == (
        "mine", "Two widths", "mnist-5k", 3,
    )  # fmt: skip
    assert [cell.config.width for cell in study.cells] == [8, 16]
    assert [cell.label for cell in study.cells] == ["narrow", "Wide one"]
    [experiment] = study.experiments
    assert experiment.cells == ("narrow", "wide")


@pytest.mark.parametrize(
    ("seeds", "first", "number"),
    [
        ("5", 0, 5),
        ("100", 0, 100),
        ("{ start = 7, most = 9 }", 0, 7),
        ("{ first = 100, start = 10 }", 100, 10),
        ("{ first = 100, step = 2 }", 100, 5),
        ("{ first = 100 }", 100, 1),
    ],
)
def test_seeds_are_a_number_or_say_where_they_begin(path: Path, seeds, first, number):
    text = GRID.replace("seeds = 3", f"seeds = {seeds}")
    path.write_text(text, encoding="utf-8")
    study = load(str(path))
    assert isinstance(study, GridStudy)
    assert (study.first, study.seeds) == (first, number)
    jsonschema.Draft202012Validator(schema.json_schema()).validate(tomllib.loads(text))


def test_search_of_the_users_own_loads_with_defaults(path: Path):
    path.write_text(SEARCH, encoding="utf-8")
    study = load(str(path))
    assert isinstance(study, SearchStudy)
    assert (study.title, study.dataset.name, study.n_trials) == ("mine", "mnist", 100)


# --- files that are none -----------------------------------------------------------------------


def test_unknown_study_is_told_which_there_are():
    with pytest.raises(
        InputError, match=r"'nonsense'.*grid-report, interactions, noise, precision, search"
    ):
        load("nonsense")


def test_folder_as_study_file_is_told_so(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot be read.*TOML file"):
        load(str(tmp_path))


def test_overlong_file_name_is_no_crash(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        load(str(tmp_path / ("a" * 300)))


def test_file_that_is_not_utf8_is_told_so(path: Path):
    path.write_bytes(GRID.replace("Two", "Zw\u00f6lf").encode("latin-1"))
    with pytest.raises(InputError, match=r"mine\.toml: is not UTF-8") as caught:
        load(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_byte_order_mark_is_read_and_utf16_is_told_so(path: Path):
    path.write_text(GRID, encoding="utf-8-sig")
    assert load(str(path)).title == "Two widths"
    path.write_text(GRID, encoding="utf-16")
    with pytest.raises(
        InputError, match=r"mine\.toml: is not UTF-8 text; save it as UTF-8"
    ) as told:
        load(str(path))
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "title = ",
        "[[cells]\nname = 'a'",
        "seeds = 1\nseeds = 2",
        "x = " + "[" * 5_000,
        "seeds = " + "9" * 5_000,
    ],
    ids=["no value", "open bracket", "key twice", "nested too deep", "number too long"],
)
def test_malformed_toml_is_told_so_in_one_line(path: Path, text: str):
    assert fault_of(path, text).startswith(f"{path}: is not valid TOML: ")


def test_file_name_that_cannot_name_a_study_is_refused(tmp_path: Path):
    path = tmp_path / "my study.toml"
    assert "'my study'" in fault_of(path, GRID)


@pytest.mark.parametrize("text", ["", "title = 'x'", GRID + SEARCH], ids=["empty", "title", "both"])
def test_file_must_be_a_grid_or_a_search(path: Path, text: str):
    said = "needs [[cells]] or [grid] (a grid), or [space] (a search)"
    assert fault_of(path, text) == f"{path}: {said}"


def test_thousands_of_cells_are_read_at_once(path: Path):
    cells = "".join(f'[[cells]]\nname = "c{i}"\n' for i in range(20_000))
    path.write_text(GRID.partition("[[cells]]")[0] + cells, encoding="utf-8")
    started = time.monotonic()
    assert len(load(str(path)).cells) == 20_000
    assert time.monotonic() - started < 10


# --- all combinations --------------------------------------------------------------------------

FACTORS = GRID[: GRID.index("[[cells]]")].replace('optimizer = "sgd"\nlr = 0.1\n', "")
FACTORIAL = FACTORS + '[grid]\noptimizer = ["adam", "sgd"]\nlr = [0.1, 0.01, 1e-5]\n'


def names_of(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    study = load(str(path))
    assert isinstance(study, GridStudy)
    jsonschema.Draft202012Validator(schema.json_schema()).validate(tomllib.loads(text))
    return [cell.name for cell in study.cells]


def test_lists_make_a_cell_of_each_combination_the_first_key_outermost(path: Path):
    names = names_of(path, FACTORIAL)
    assert names == ["adam-0.1", "adam-0.01", "adam-1e-05", "sgd-0.1", "sgd-0.01", "sgd-1e-05"]
    study = load(str(path))
    assert isinstance(study, GridStudy)
    settings = [(cell.config.optimizer, cell.config.lr) for cell in study.cells]
    assert settings == list(itertools.product(["adam", "sgd"], [0.1, 0.01, 1e-5]))
    assert {cell.config.width for cell in study.cells} == {8}
    swapped = FACTORS + '[grid]\nlr = [0.1, 0.01]\noptimizer = ["adam", "sgd"]\n'
    assert names_of(path, swapped)[:2] == ["0.1-adam", "0.1-sgd"]


def test_a_shipped_factorial_is_what_lists_make(path: Path):
    listed = load("interactions")
    assert isinstance(listed, GridStudy)
    raw = {key: value for key, value in listed.raw.items() if key != "cells"}
    raw["grid"] = {
        "activation": ["sigmoid", "relu"], "optimizer": ["sgd", "adam"], "lr": [0.1, 0.01, 0.001],
    }  # fmt: skip
    made = study_file.parse(raw, "made", "made.toml")
    assert isinstance(made, GridStudy)
    assert made.cells == listed.cells
    assert made.claims == listed.claims


@pytest.mark.parametrize(
    ("lists", "names"),
    [
        ("lr = [0.1]\noptimizer = ['adam', 'sgd']", ["adam", "sgd"]),
        ("lr = [0.1]\noptimizer = ['adam']", ["0.1-adam"]),
        ("lr = [0.1]\noptimizer = ['sgd']\nwidths = [[64, 32], '8']", ["64x32", "8"]),
        (
            "lr = [0.1]\noptimizer = ['sgd']\nnesterov = [true, false]\nmomentum = [0.9]",
            ["nesterov-true", "nesterov-false"],
        ),
    ],
)
def test_cells_of_lists_are_named_by_what_differs(path: Path, lists: str, names: list[str]):
    assert names_of(path, f"{FACTORS}[grid]\n{lists}\n") == names


def test_lists_of_ones_own_hyperparameters_are_named_with_their_key(path: Path):
    base = 'model = "nets:build"\n[base]\noptimizer = "sgd"\nlr = 0.1\n[grid]\n'
    text = base + 'channels = [4, 8]\npool = [true, false]\nhead = ["a b", "a/b"]'
    names = names_of(path, text)
    assert names[:3] == [
        "4-pool-true-head-a_b", "4-pool-true-head-a_b.2", "4-pool-false-head-a_b",
    ]  # fmt: skip
    assert len(set(names)) == 8
    study = load(str(path))
    assert isinstance(study, GridStudy)
    assert study.cells[1].config.own == {"channels": 4, "pool": True, "head": "a/b"}
    assert names_of(path, base + '"é" = ["ü", "ö"]') == ["cell", "cell.2"]


def test_lists_stand_beside_named_cells_and_claims_know_them(path: Path):
    text = FACTORIAL + (
        '[[cells]]\nname = "first"\noptimizer = "sgd"\nlr = 1\n'
        '[[claims]]\nsays = "x"\ngreater = ["adam-0.1", "first"]\n'
        '[[experiments]]\ntitle = "y"\ncells = ["sgd-0.1", "first"]\n'
    )
    assert names_of(path, text)[:2] == ["first", "adam-0.1"]
    twice = FACTORIAL + '[[cells]]\nname = "sgd-0.1"\noptimizer = "sgd"\nlr = 1\n'
    assert fault_of(path, twice).endswith("cells.sgd-0.1: two cells have this name; rename one")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0.01, 1e-5]", "-1, 1e-5]", "grid.lr[1]: must be greater than 0, got -1"),
        ("[0.1, 0.01, 1e-5]", "[]", "grid.lr: must be a list of one value or more, got []"),
        ("[0.1, 0.01, 1e-5]", "0.1", "grid.lr: must be a list of one value or more, got 0.1"),
        ("[0.1, 0.01, 1e-5]", "[1, 1.0]", "grid.lr: has a value twice"),
        ("lr = [0.1", "widths = [4, 8]\nlr = [0.1", "grid.widths: must be a list of lists, such"),
        ("lr = [0.1", "varies = [1]\nlr = [0.1", "grid.varies: unknown key; known: depth"),
        ("lr = [0.1", "rl = [0.1", "grid.rl: unknown key"),
        (
            "lr = [0.1",
            "momentum = [0, 0.9]\nlr = [0.1",
            "grid.momentum: is no",
        ),
        ("epochs = 2", "epochs = 2\nmomentum = 0.9", "grid.momentum: is no hyperparameter of adam"),
        ("lr = [0.1, 0.01, 1e-5]", "", "grid.lr: is missing here and in [base]"),
        (
            "lr = [0.1",
            f"epochs = {list(range(1, 201))}\nlr = [0.1",
            "grid: must make 1 to 1,000 cells",
        ),
    ],
)
def test_wrong_lists_are_told_in_one_line(path: Path, old: str, new: str, said: str):
    assert fault_of(path, FACTORIAL.replace(old, new)).startswith(f"{path}: {said}")


def test_an_empty_table_of_lists_is_told_so(path: Path):
    assert fault_of(path, FACTORS + "[grid]").endswith(": grid: must make 1 to 1,000 cells")


# --- values that are wrong ---------------------------------------------------------------------

HUGE = "9" * 400
SHORT = f"{HUGE[:100]} … {HUGE[:16]}"


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ('lr = "fast"', "lr", "must be a number, got 'fast'"),
        ("lr = -1", "lr", "must be greater than 0, got -1"),
        ("lr = 0.0", "lr", "must be greater than 0, got 0.0"),
        ("lr = nan", "lr", "must be between 0 and 1e+06, got nan"),
        ("lr = inf", "lr", "must be between 0 and 1e+06, got inf"),
        ("lr = 1e400", "lr", "must be between 0 and 1e+06, got inf"),
        (f"lr = {HUGE}", "lr", f"must be between 0 and 1e+06, got {SHORT}"),
        ("lr = true", "lr", "must be a number, got True"),
        ("lr = { low = 0.1, high = 1 }", "lr", "must be a number, got {'low': 0.1, 'high': 1}"),
        ("lr = [[0.1]]", "lr", "must be a number, got [[0.1]]"),
        ("depth = 0", "depth", "must be between 1 and 100, got 0"),
        ("depth = 2.0", "depth", "must be a whole number, got 2.0"),
        (f"depth = {HUGE}", "depth", f"must be between 1 and 100, got {SHORT}"),
        ("width = 1_000_000", "width", "must be between 1 and 65536, got 1000000"),
        ("batch_size = 0", "batch_size", "must be between 1 and 65536, got 0"),
        ("epochs = 1979-05-27", "epochs", "must be a whole number, got datetime.date(1979, 5, 27)"),
        ("momentum = 1.5", "momentum", "must be between 0 and 1, got 1.5"),
        ("nesterov = 1", "nesterov", "must be true or false, got 1"),
        ("nesterov = true", "nesterov", "needs optimizer sgd with a momentum above 0"),
    ],
)  # fmt: skip
def test_wrong_hyperparameter_names_file_key_value_and_remedy(
    path: Path, line: str, key: str, said: str
):
    assert fault_of(path, grid_with(line)) == f"{path}: cells.narrow.{key}: {said}"


def test_wrong_hyperparameter_in_base_is_told_once_not_per_cell(path: Path):
    line = fault_of(path, GRID.replace("lr = 0.1", "lr = -1"))
    assert line == f"{path}: base.lr: must be greater than 0, got -1"


@pytest.mark.parametrize("value", ['"swish"', '["relu"]', "{ a = 1 }", "3"])
def test_unknown_activation_is_told_which_there_are(path: Path, value: str):
    line = fault_of(path, grid_with(f"activation = {value}"))
    assert line.startswith(f"{path}: cells.narrow.activation: must be one of sigmoid, tanh, relu, ")


@pytest.mark.parametrize("value", ['"lion"', '["sgd"]', "nan"])
def test_unknown_optimizer_is_told_which_there_are(path: Path, value: str):
    line = fault_of(path, grid_with(f"optimizer = {value}"))
    assert line.startswith(
        f"{path}: cells.narrow.optimizer: must be one of sgd, sgd_momentum, adam, adamw, rmsprop, "
    )


@pytest.mark.parametrize(
    ("old", "new", "key", "near"),
    [
        ("seeds = 3", "seed = 3", "seed", "seeds"),
        ("width = 8", "widht = 8\nwidth = 8", "base.widht", "width"),
        ("width = 16", "activations = 'relu'", "cells.wide.activations", "activation"),
        ("test_loss = 0.2", "testloss = 0.2", "cells.wide.reported.testloss", "test_loss"),
    ],
)
def test_unknown_key_is_asked_what_it_meant(path: Path, old: str, new: str, key: str, near: str):
    line = fault_of(path, GRID.replace(old, new))
    assert line == f"{path}: {key}: unknown key; did you mean {near!r}?"


def test_unknown_key_like_no_other_is_told_the_known_ones(path: Path):
    assert "zzz: unknown key; known: title, " in fault_of(path, "zzz = 1\n" + GRID)


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("cells = 3", "cells: must be a list of tables, got 3"),
        ("cells = [1, 2]", "cells: must be a list of tables, got [1, 2]"),
        ("cells = {}", "cells: must be a list of tables, got {}"),
        ("cells = []", "cells: needs at least one [[cells]] table"),
        (GRID.replace('"Two widths"', "3"), "title: must be text, got 3"),
        (GRID.replace('"mnist-5k"', "[]"), "dataset: must be one of mnist, "),
        (GRID.replace('"mnist-5k"', '"imagenet"'), "dataset: must be one of mnist, "),
        (GRID.replace("seeds = 3", "seeds = 0"), "seeds: must be a whole number from 1 to "),
        (GRID.replace("seeds = 3", "seeds = 2.5"), "seeds: must be a whole number from 1 to "),
        (GRID.replace("seeds = 3", f"seeds = {HUGE}"), "seeds: must be a whole number from 1 to "),
        (f'experiments = "x"\n{GRID}', "experiments: must be a list of tables, got 'x'"),
        (GRID.replace('"narrow"', "[1]"), "cells[0].name: must be letters, "),
        (GRID.replace('"narrow"', '"../x"'), "cells[0].name: must be letters, "),
        (grid_with("reported = 3"), "cells.narrow.reported: must be a list of tables, got 3"),
        (grid_with("reported = [3]"), "cells.narrow.reported: must be a list of tables, got [3]"),
        (
            GRID.replace("test_accuracy = 0.95", "test_accuracy = 95.0"),
            "cells.wide.reported.test_accuracy: must be a number from 0 to 1, got 95.0",
        ),
        (
            GRID.replace("test_loss = 0.2", f"test_loss = {HUGE}"),
            "cells.wide.reported.test_loss: must be a number from 0 to ",
        ),
        (
            GRID.replace("test_loss = 0.2", "test_loss = nan"),
            "cells.wide.reported.test_loss: must be a number from 0 to ",
        ),
        (GRID.replace('"Wide one"', "[]"), "cells.wide.reported.label: must be text, got []"),
        (GRID.replace("lr = 0.1\n", "", 1).replace("width = 16", "lr = 1"),
         "cells.narrow.lr: is missing here and in [base]"),
    ],
)  # fmt: skip
def test_value_of_the_wrong_kind_is_told_in_one_line(path: Path, text: str, starts: str):
    assert fault_of(path, text).startswith(f"{path}: {starts}")


def test_base_that_is_no_table_is_told_so(path: Path):
    text = "base = 3\n" + GRID.replace("[base]", "[other]")
    assert f"{path}: base: must be a table, got 3" in faults_of(path, text)


def test_cell_name_used_twice_is_told_once(path: Path):
    line = fault_of(path, GRID.replace('"wide"', '"narrow"'))
    assert line == f"{path}: cells.narrow: two cells have this name; rename one"


def test_cells_without_a_name_are_not_called_namesakes(path: Path):
    lines = faults_of(path, GRID.replace('name = "narrow"', "").replace('name = "wide"', ""))
    assert [line.split(": ")[1] for line in lines] == ["cells[0].name", "cells[1].name"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('cells = ["narow"]', "cells: no cell is named 'narow'; there are narrow, wide"),
        ("cells = []", "cells: needs at least one cell's name"),
        (
            'cells = ["wide"]\ncurves = ["x"]',
            "curves: no cell is named 'x'; there are narrow, wide",
        ),
        ('cells = ["wide"]\ncolumns = ["speed"]', "columns: unknown 'speed'; there are "),
        ('cells = ["wide"]\ntitle = 3', "title: must be text, got 3"),
        ('cells = ["wide"]\nrows = 3', "rows: unknown key; "),
    ],
)
def test_wrong_experiment_is_told_in_one_line(path: Path, line: str, said: str):
    assert fault_of(path, f"{GRID}[[experiments]]\n{line}").startswith(
        f"{path}: experiments[0].{said}"
    )


def test_experiment_whose_cells_are_no_names_is_told_so(path: Path):
    lines = faults_of(path, f"{GRID}[[experiments]]\ncells = [[1]]")
    assert lines[0] == f"{path}: experiments[0].cells: must be a list of names, got [[1]]"


def test_every_fault_has_a_line_of_its_own(path: Path):
    text = GRID.replace("seeds = 3", "seeds = 0").replace("width = 16", "width = 0\ndepth = 0")
    lines = faults_of(path, text.replace('"Two widths"', "3"))
    keys = [line.removeprefix(f"{path}: ").split(": ")[0] for line in lines]
    assert sorted(keys) == ["cells.wide.depth", "cells.wide.width", "seeds", "title"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SEARCH.replace('"relu"', '"swish"'), "space.activation: must be one of sigmoid, "),
        (SEARCH.replace("[16, 32]", "[]"), "space.width: is an empty list of choices; "),
        (SEARCH.replace("high = 4", "high = 0"), "space.depth: high: must be between 1 and 100"),
        (SEARCH.replace('"relu"', "{ low = 1, high = 2 }"), "space.activation: has no range; "),
        (SEARCH.replace("width", "widht"), "space.widht: unknown key; did you mean 'width'?"),
        ("space = 3", "space: must be a table, got 3"),
        (SEARCH + "[search]\nn_trials = 0", "search.n_trials: must be a whole number from 1 to "),
        (SEARCH + "[search]\nsampler = ['tpe']", "search.sampler: must be one of tpe, "),
        (SEARCH + "[search]\npruner = 'x'", "search.pruner: must be one of none, "),
        (SEARCH + "[search]\ntrials = 3", "search.trials: unknown key; did you mean 'n_trials'?"),
        ("search = 'x'\n" + SEARCH, "search: must be a table, got 'x'"),
    ],
)
def test_wrong_search_is_told_file_key_and_remedy(path: Path, text: str, said: str):
    assert faults_of(path, text)[0].startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        (SEARCH.replace("[space]", "[spce]"), "space"),
        (SEARCH.replace("high = 4", "hihg = 4"), "high"),
        (
            SEARCH + "dropout = { low = 0.1, high = 0.2, when = { dpth = 2 } }",
            "depth",
        ),
        (SEARCH + "[search]\nobjectives = ['valid_accuracy', 'paramters']", "parameters"),
        (SEARCH + "[[search.first]]\ndpth = 2", "depth"),
        (
            GRID + "[[experiments]]\ntitle = 'x'\ncells = ['wide']\ncolumns = ['activaton']",
            "activation",
        ),
        (GRID + "[[claims]]\nsays = 'x'\nfails = 'wid'", "wide"),
    ],
)
def test_a_mistyped_name_is_told_which_one_was_meant(path: Path, text: str, near: str):
    assert fault_of(path, text).endswith(f"; did you mean {near!r}?")


def test_a_mistyped_path_is_told_which_file_was_meant(path: Path):
    path.write_text(GRID)
    with pytest.raises(InputError, match=f"or a path; did you mean '{path}'"):
        study_file.load(str(path.with_name("x" + path.name)))


def test_search_without_a_hyperparameter_is_told_which(path: Path):
    text = SEARCH.replace('activation = "relu"\n', "")
    assert fault_of(path, text) == f"{path}: space.activation: is missing"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/abs", "a..b", "-a", "a b", "a\n", "ä", "a" * 101]
)
def test_name_that_could_leave_its_folder_is_refused(name: str):
    with pytest.raises(InputError, match="study name"):
        study_file.check_name(name)


def test_ordinary_name_is_kept():
    assert study_file.check_name("grid-report.mnist-5k_2") == "grid-report.mnist-5k_2"
