"""The user's own network: trained as by an ordinary loop, refused where it is wrong, run whole."""

import multiprocessing
import os
import random
import re
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from scenes import wait_for
from test_training import examples, reference_optimizer, reference_schedule, split
from tiny import tiny_dataset
from torch import nn

from hpo.errors import InputError
from hpo.runs.samplers import cell_distributions
from hpo.study import file as study_file
from hpo.study.columns import RESERVED
from hpo.study.config import HYPERPARAMETERS, Config, Seeds
from hpo.study.file import CellTable
from hpo.study.space import Fixed, fits, read_space, size
from hpo.training.own import try_model
from hpo.training.tensors import Examples, class_weights
from hpo.training.train import train
from hpo.workers import pool

EXAMPLE = Path(__file__).parents[1] / "studies" / "examples"
MODULE = """
import torch
from torch import nn


def build(shape, classes, units, share=0.0):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(shape[0], units), nn.BatchNorm1d(units), nn.Tanh(),
        nn.Dropout(share), nn.Linear(units, classes),
    )


def no_module(shape, classes, units):
    return "a network"


def wrong_output(shape, classes, units):
    return nn.Linear(shape[0], classes + 1)


def wrong_input(shape, classes, units):
    return nn.Linear(shape[0] + 1, classes)


def broken(shape, classes, units):
    raise RuntimeError("not today")


def dies(shape, classes, units):
    import os
    os._exit(3)
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(MODULE)
    return tmp_path


def config(factory: str = "nets:build", **changes) -> Config:
    settings = {"optimizer": "sgd", "lr": 0.1, "batch_size": 16, "epochs": 2, "units": 8}
    return Config.of({**settings, "model": factory, **changes})


# --- training ----------------------------------------------------------------------------------


def by_an_ordinary_loop(
    settings: Config, seed: int, weight: torch.Tensor | None = None
) -> nn.Module:
    torch.manual_seed(seed)
    share = settings.own.get("share", 0.0)
    units = settings.own["units"]
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(20, units), nn.BatchNorm1d(units), nn.Tanh(),
        nn.Dropout(share), nn.Linear(units, 10),
    )  # fmt: skip
    optimizer = reference_optimizer(model.parameters(), settings)
    schedule = reference_schedule(optimizer, settings.schedule, settings.epochs * 20)
    data, rows = examples(), split(seed).train
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(2**31 + seed)
    for _ in range(settings.epochs):
        model.train()
        shuffled = rows[torch.randperm(len(rows), generator=order)]
        for batch in shuffled.split(settings.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(data.images[batch]), data.labels[batch], weight,
                label_smoothing=settings.label_smoothing,
            )  # fmt: skip
            loss.backward()
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
    return model.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1},
        {"optimizer": "sgd_momentum", "schedule": "cosine", "share": 0.3},
        {"optimizer": "rmsprop", "lr": 1e-3, "clip_norm": 0.5, "label_smoothing": 0.1},
    ],
)
def test_it_is_trained_as_by_an_ordinary_loop_alone_and_beside_others(folder: Path, changes):
    settings = config(**changes)
    for seeds in ([1], [0, 1, 2]):
        splits, own = [split(seed) for seed in seeds], [Seeds.of(seed) for seed in seeds]
        data = Examples(examples().images, examples().labels, 10, (20,))
        epoch = list(train(settings, data, splits, own, folder=str(folder)))[-1]
        for replicate, seed in enumerate(seeds):
            model, rows = by_an_ordinary_loop(settings, seed), split(seed).valid
            ours = epoch.network.state_dict(replicate)
            adaptive = settings.optimizer in ("adamw", "rmsprop")
            for name, weight in model.state_dict().items():
                if adaptive and name in ("1.bias", "2.running_mean"):
                    continue  # the norm takes the bias away: its gradient is rounding
                torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-6)
            with torch.no_grad():
                logits = model(data.images[rows])
            loss = nn.functional.cross_entropy(logits, data.labels[rows]).item()
            assert epoch.valid_loss[replicate] == pytest.approx(loss, rel=2e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_its_class_weights_are_those_of_an_ordinary_loop(folder: Path, smoothing: float):
    settings, seeds = config(label_smoothing=smoothing), [0, 1]
    data = Examples(examples().images, examples().labels, 10, (20,))
    splits, own = [split(seed) for seed in seeds], [Seeds.of(seed) for seed in seeds]
    weights = class_weights("balanced", data, splits, [str(label) for label in range(10)])
    epoch = list(train(settings, data, splits, own, folder=str(folder), weights=weights))[-1]
    for seed in seeds:
        model = by_an_ordinary_loop(settings, seed, weights[seed])
        for name, weight in model.state_dict().items():
            ours = epoch.network.state_dict(seed)[name]
            torch.testing.assert_close(ours, weight, rtol=1e-4, atol=1e-6)


RANDOM = """
import random
import numpy as np
import torch
from torch import nn


class Noisy(nn.Linear):
    def forward(self, rows):
        noise = random.random() + np.random.rand() + torch.rand(len(rows), 1)
        return super().forward(rows) + noise * self.training


def build(shape, classes, units):
    made = Noisy(shape[0], classes)
    made.bias.data += torch.from_numpy(np.random.rand(classes)) + random.random()
    return made
"""


def test_what_a_network_draws_depends_on_its_seeds_alone(tmp_path: Path):
    (tmp_path / "drawing.py").write_text(RANDOM)
    data = Examples(examples().images, examples().labels, 10, (20,))

    def losses(seeds: list[int]) -> list[list[float]]:
        own = [Seeds.of(seed) for seed in seeds]
        same = [split(0) for _ in seeds]
        made = list(train(config("drawing:build"), data, same, own, folder=str(tmp_path)))
        return [[e.train_loss[r], e.valid_loss[r]] for r in range(len(seeds)) for e in made]

    random.seed(5)
    together = losses([0, 1])
    assert random.random() == random.Random(5).random()
    random.seed(6)
    assert together == losses([0]) + losses([1])
    assert together[:2] != together[2:]


def test_training_leaves_torchs_own_generator_as_it_was(folder: Path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    data = Examples(examples().images, examples().labels, 10, (20,))
    list(train(config(share=0.5), data, [split(0)], [Seeds.of(0)], folder=str(folder)))
    assert torch.equal(before, torch.random.get_rng_state())


# --- the study file ----------------------------------------------------------------------------

SEARCH = """
dataset = "wine"
model = "nets:build"
[search]
n_trials = 4
[finalists]
k = 1
seeds = 2
[space]
units = { low = 4, high = 16 }
share = [0.0, 0.2]
weight_decay = { value = 0.01, when = { units = { low = 8 } } }
optimizer = ["sgd", "adam"]
lr = { low = 1e-3, high = 1e-1, log = true }
batch_size = 16
epochs = 4
"""
GRID = """
dataset = "wine"
model = "nets:build"
seeds = 2
[base]
optimizer = "adam"
lr = 1e-2
batch_size = 16
epochs = 4
[[cells]]
name = "small"
units = 4
[[cells]]
name = "large"
units = 16
share = 0.2
"""


def fault(text: str) -> str:
    with pytest.raises(InputError) as caught:
        study_file.parse(tomllib.loads(text), "mine", "mine.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"nets:build"', '"nets"', 'model: must be "module:function"'),
        ('"nets:build"', "3", 'model: must be "module:function"'),
        ("units = {", "depth = {", "space.depth: belongs to hpo's own perceptron"),
        ("units = {", "shape = {", "space.shape: cannot be an argument's name"),
        ("units = {", "two-words = {", "space.two-words: cannot be an argument's name"),
        (
            "low = 4, high = 16",
            "low = 'a', high = 16",
            "space.units: low and high: must be numbers",
        ),
        ("share = [0.0, 0.2]", "share = [[0.0]]", "must be a number, true, false or text"),
        ("share = [0.0, 0.2]", "share = { value = 0.1, when = { lr = 0.1 } }", "has no condition"),
        ('optimizer = ["sgd", "adam"]', "", "space.optimizer: is missing"),
    ],
)
def test_slips_in_the_study_file_get_a_line(old: str, new: str, said: str):
    changed = SEARCH.replace(old, new)
    if "units = {" not in changed:
        changed = changed.replace("when = { units = { low = 8 } }", "when = { epochs = 4 }")
    assert said in fault(changed)


@pytest.mark.parametrize("name", sorted(RESERVED - set(HYPERPARAMETERS)))
def test_a_column_of_trials_is_no_name_of_a_hyperparameter(name: str):
    said = f"{name}: is a name of hpo's own columns and attributes of trials; rename it"
    searched = SEARCH.replace("share = [", f"{name} = [")
    assert fault(searched) == f"mine.toml: space.{said}"
    assert f"cells.large.{said}" in fault(GRID.replace("share = 0.2", f"{name} = 0.2"))
    assert f"base.{said}" in fault(GRID.replace("[base]", f"[base]\n{name} = 0.2"))


@pytest.mark.parametrize("name", sorted(set(CellTable.model_fields) - set(HYPERPARAMETERS)))
def test_a_key_of_cells_is_no_name_of_a_hyperparameter(name: str):
    said = f"space.{name}: is a key of a grid's cells, as finalists are; rename it"
    assert said in fault(SEARCH.replace("share = [", f"{name} = ["))


@pytest.mark.parametrize("name", ["noise", "ema", "dropout"])
def test_what_only_hpos_own_perceptron_has_is_refused(name: str):
    said = f"space.{name}: belongs to hpo's own perceptron; give your network's another name"
    assert said in fault(SEARCH.replace("share = [", f"{name} = ["))


def cells_with(*values: str) -> str:
    """GRID with a cell for each of these values of `kind`."""
    cells = (f'[[cells]]\nname = "c{i}"\nunits = 4\nkind = {v}\n' for i, v in enumerate(values))
    return GRID.partition("[[cells]]")[0] + "".join(cells)


@pytest.mark.parametrize(
    "values", [("1", "true"), ("false", "0"), ("1", "1.0", '"a"'), ("0.0", "false", "2")]
)
def test_values_that_are_equal_but_not_the_same_are_refused(values: tuple[str, ...]):
    first, second = (repr(v) for v in tomllib.loads(f"x = [{', '.join(values)}]")["x"][:2])
    said = f"mine.toml: cells.c1.kind: {second} counts as equal to {first} of cell c0; write both"
    assert fault(cells_with(*values)).startswith(said)


@pytest.mark.parametrize(
    "values",
    [('"a"', "3"), ("1", "1.5"), ("1.5", "1", "3"), ("true", "2", '"x"'), ("1", "1.0"), ("3", "2")],
)
def test_cells_may_have_values_of_mixed_types(values: tuple[str, ...]):
    study = study_file.parse(tomllib.loads(cells_with(*values)), "mine", "mine.toml")
    configs = [cell.config for cell in study.cells]
    kind = cell_distributions(configs)["kind"]
    for config in configs:
        value = config.own["kind"]
        stored = kind.to_external_repr(kind.to_internal_repr(value))
        assert stored == value
        assert isinstance(stored, type(value)) or not isinstance(kind, CategoricalDistribution)


def test_a_momentum_of_0_in_one_cell_and_of_a_half_in_another_are_stored_as_they_are():
    common = {"depth": 1, "width": 4, "activation": "relu", "optimizer": "sgd", "lr": 0.1}
    configs = [Config(**common, momentum=value) for value in (0, 0.5)]
    momentum = cell_distributions(configs)["momentum"]
    assert [momentum.to_external_repr(momentum.to_internal_repr(m)) for m in (0, 0.5)] == [0, 0.5]


@pytest.mark.parametrize(
    ("domain", "entry"),
    [
        ("{ low = 4, high = 16 }", '"a"'),
        ("{ low = 4, high = 16 }", "8.5"),
        ("{ low = 0, high = 16 }", "true"),
        ('["a", true]', "1"),
        ('["a", 1]', "1.0"),
        ("1", "true"),
    ],
)
def test_a_first_trials_value_of_another_type_is_not_in_the_space(domain: str, entry: str):
    text = SEARCH.replace("share = [0.0, 0.2]", f"kind = {domain}")
    said = fault(text.replace("[search]", f"[[search.first]]\nkind = {entry}\n[search]"))
    value = tomllib.loads(f"x = {entry}")["x"]
    assert said.startswith(f"mine.toml: search.first[0].kind: {value!r} is not in its domain: ")


def test_another_searchs_trials_fit_only_with_values_of_the_same_type():
    space = {"optimizer": Fixed(value="sgd"), "lr": Fixed(value=0.1), "flag": Fixed(value=True)}
    known = {"optimizer": "sgd", "lr": 0.1}
    assert fits(space, {**known, "flag": True}) == {}
    assert fits(space, {**known, "flag": 1}) is None


def test_without_a_model_unknown_hyperparameters_stay_unknown():
    assert "space.units: unknown key" in fault(
        SEARCH.replace('model = "nets:build"\n', "").replace("share =", "dropout =")
        .replace("when = { units = { low = 8 } }", "when = { epochs = 4 }")
        .replace("[space]", '[space]\ndepth = 1\nwidth = 8\nactivation = "relu"')
        .replace("[0.0, 0.2]", "[0.1, 0.2]")
    )  # fmt: skip


def test_own_hyperparameters_are_values_choices_and_ranges():
    table = {
        "optimizer": "sgd", "lr": 0.1, "kind": ["a", "b"], "bias": True,
        "units": {"low": 4, "high": 8}, "part": {"low": 0.5, "high": 1.0, "step": 0.25},
    }  # fmt: skip
    space, faults = read_space(table, own_network=True)
    assert faults == []
    assert space is not None
    assert size(space) == 2 * 5 * 3


# --- whole runs --------------------------------------------------------------------------------


def test_a_search_and_a_grid_go_to_their_reports(hpo: Callable, folder: Path):
    (folder / "at").mkdir()
    (folder / "nets.py").rename(folder / "at" / "nets.py")
    for name, text in (("search", SEARCH), ("grid", GRID)):
        (folder / "at" / f"own-{name}.toml").write_text(text)
        answer = hpo("run", f"at/own-{name}.toml", "--quiet", timeout=120)
        assert (answer.code, answer.err) == (0, "")
    trials = pd.read_csv(folder / "reports/own-search/trials.csv")
    assert set(trials["units"]) <= set(range(4, 17))
    assert (trials["parameters"] > 0).all()
    text = (folder / "reports/own-search/report.md").read_text("utf-8")
    assert "from nets import build" in text
    assert "units" in text
    text = (folder / "reports/own-grid/report.md").read_text("utf-8")
    assert "units 16, share 0.2" in text
    refused = hpo("predict", "reports/own-search/best", "x.csv")
    assert refused.code == 2
    assert "is a network of 'nets:build'" in refused.err
    storage = optuna.load_study(study_name="own-grid", storage=f"sqlite:///{folder}/hpo.db")
    assert {t.params["units"] for t in storage.trials} == {4, 16}
    loaded = run_snippet(folder, text_of(folder, "own-search"))
    assert loaded.shape == (2, 3)


def text_of(folder: Path, study: str) -> str:
    page = (folder / f"reports/{study}/report.md").read_text("utf-8")
    return next(part for part in page.split("```") if "from nets import build" in part)


def run_snippet(folder: Path, program: str) -> np.ndarray:
    """Runs the report's program beside the report, and gives the network two rows."""
    import os
    import sys

    code = program.removeprefix("python").removeprefix("\n")
    before, path = os.getcwd(), list(sys.path)
    os.chdir(folder / "reports/own-search")
    sys.path.insert(0, str(folder / "at"))
    found: dict = {}
    try:
        exec(code, found)
    finally:
        os.chdir(before)
        sys.path[:] = path
    with torch.inference_mode():
        return found["network"](torch.zeros(2, 13)).numpy()


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("nets:no_module", "model nets:no_module: returns a str; return a torch.nn.Module"),
        (
            "nets:wrong_output",
            "gives (2, 4) for 2 inputs of shape (13); give logits of shape (2, 3)",
        ),
        ("nets:wrong_input", "cannot take inputs of shape (2, 13)"),
        ("nets:broken", "model nets:broken: RuntimeError: not today"),
        ("nets:nothing", "model nets:nothing: AttributeError"),
        ("nowhere:build", "model nowhere:build: ModuleNotFoundError: No module named 'nowhere'"),
        ("nets:dies", "model nets:dies: ends the process that builds it"),
    ],
)
def test_a_factory_that_gives_no_network_is_refused(
    hpo: Callable, folder: Path, factory: str, said: str
):
    text = SEARCH.replace("nets:build", factory).replace("share = [", "# share = [")
    (folder / "mine.toml").write_text(text)
    answer = hpo("run", "mine.toml")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert said in answer.err
    assert not (folder / "hpo.db").exists()


# --- what is tried before the first trial --------------------------------------------------------

ODD = """
import time
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def linear(shape, classes):
    return nn.Linear(shape[0], classes)


def seeded(shape, classes):
    torch.manual_seed(0)
    return linear(shape, classes)


def seeded_by_numpy(shape, classes):
    np.random.seed(0)
    made = linear(shape, classes)
    for part in made.parameters():
        part.data = torch.from_numpy(np.random.rand(*part.shape)).float()
    return made


def unseeded(shape, classes):
    made = linear(shape, classes)
    made.bias.data += torch.from_numpy(np.random.default_rng().random(classes))
    return made


def pretrained(shape, classes):
    made = linear(shape, classes)
    made.weight.data = torch.arange(3.0 * shape[0]).view(3, -1)
    made.bias.data = torch.zeros(3)
    return made


def zeros(shape, classes):
    made = linear(shape, classes)
    for part in made.parameters():
        nn.init.zeros_(part)
    return made


def lazy(shape, classes):
    return nn.LazyLinear(classes)


def double(shape, classes):
    return linear(shape, classes).double()


def default(shape, classes):
    torch.set_default_dtype(torch.float64)
    return linear(shape, classes)


def empty(shape, classes):
    return nn.Identity()


class Odd(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layer, self.norm = nn.Linear(shape[0], classes), nn.BatchNorm1d(classes)


class dropout(Odd):
    def forward(self, rows):
        return F.dropout(self.layer(rows))


class always(dropout):
    def train(self, mode=True):
        return super().train(True)


class softmax(Odd):
    def forward(self, rows):
        return self.layer(rows).softmax(1)


class log_softmax(Odd):
    def forward(self, rows):
        return self.layer(rows).log_softmax(1)


class infinite(Odd):
    def forward(self, rows):
        return self.layer(rows) / 0


class two(Odd):
    def forward(self, rows):
        return (self.layer(rows), rows) if self.training else self.layer(rows)


class detached(Odd):
    def forward(self, rows):
        return self.layer(rows).detach()


class normed(Odd):
    def forward(self, rows):
        return self.norm(self.layer(rows))


def slow(shape, classes):
    time.sleep(60)


def kept(shape, classes, made=[]):
    made.append(linear(shape, classes))
    return made[0]


def scripted(shape, classes):
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(linear(shape, classes))


class mixing(Odd):
    def forward(self, rows):
        return self.layer(rows - rows.mean(0))


class private(Odd):
    def forward(self, rows):
        drawn = np.random.default_rng().random() if self.training else 1
        return drawn * self.layer(rows)


def told(shape, classes):
    raise RuntimeError("it begins\\nand goes on\\n  and says why  \\n")
"""


def tried(folder: Path, factory: str, **settings: object) -> str:
    """What try_model notes of a factory of ODD for rows of four numbers."""
    (folder / "odd.py").write_text(ODD)
    rows = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
    chosen = Config.of({"optimizer": "sgd", "lr": 0.1, "model": f"odd:{factory}", **settings})
    return try_model(chosen, str(folder), (4,), rows, np.array([0, 2]), 3)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("seeded", "builds the same weights for every seed: it calls torch.manual_seed; leave"),
        ("seeded_by_numpy", "the same weights for every seed: it calls numpy.random.seed; leave"),
        ("unseeded", "builds other weights when the seed is the same; draw them from the global"),
        ("lazy", "has a lazy layer such as LazyLinear; give its size"),
        ("double", "has parameters of torch.float64; hpo trains in float32"),
        ("default", "sets torch's default dtype to torch.float64; leave that out"),
        ("empty", "has no parameters to train"),
        ("dropout", "gives other logits for the same rows in evaluation; leave out what is random"),
        ("always", "is still in training mode after .eval()"),
        ("softmax", "gives probabilities; give logits: leave out the softmax"),
        ("infinite", "gives logits that are not finite before any training"),
        ("two", "gives tuple for 2 inputs of shape (4) in training mode; give logits"),
        ("detached", "cannot be trained: RuntimeError: element 0 of tensors does not require grad"),
        ("kept", "returns the same module, or the same parameters, again; make new ones"),
        ("scripted", "returns a TorchScript module, which hpo cannot train"),
        ("mixing", "gives a row other logits beside other rows; leave out what mixes"),
        ("private", "the same seed trains to other weights; draw from the global generators"),
        ("told", "RuntimeError: it begins … and says why"),
    ],
)
def test_a_network_that_would_train_wrongly_is_refused(tmp_path: Path, factory: str, said: str):
    with pytest.raises(InputError) as caught:
        tried(tmp_path, factory)
    fault = str(caught.value)
    assert fault.startswith(f"model odd:{factory}: ")
    assert said in fault
    assert len(fault.splitlines()) == 1
    assert torch.get_default_dtype() == torch.float32


def test_each_trial_refuses_a_network_that_its_own_values_make_wrong(tmp_path: Path):
    """The check before the first trial tries one configuration."""
    (tmp_path / "odd.py").write_text(ODD)
    data = Examples(examples().images, examples().labels, 10, (20,))
    chosen = Config.of({"optimizer": "sgd", "lr": 0.1, "model": "odd:softmax"})
    training = train(chosen, data, [split(0)], [Seeds.of(0)], folder=str(tmp_path))
    with pytest.raises(InputError, match="gives probabilities; give logits"):
        next(training)


def test_a_refusal_names_the_configuration_that_was_tried(tmp_path: Path):
    with pytest.raises(InputError, match=r"'units' \(tried with units 8\)$"):
        tried(tmp_path, "linear", units=8)


def test_a_batch_of_one_row_is_tried_as_it_will_be_trained(tmp_path: Path):
    assert not tried(tmp_path, "normed")
    with pytest.raises(InputError, match="cannot be trained: ValueError"):
        tried(tmp_path, "normed", batch_size=1)


@pytest.mark.parametrize("factory", ["linear", "zeros", "log_softmax"])
def test_a_network_in_order_is_taken_without_a_word(tmp_path: Path, factory: str):
    assert not tried(tmp_path, factory)


def test_weights_from_a_file_are_taken_with_a_note(tmp_path: Path):
    assert "builds the same weights for every seed; seeds change" in tried(tmp_path, "pretrained")


def test_a_factory_that_hangs_is_given_up_in_time(tmp_path: Path, monkeypatch):
    (tmp_path / "odd.py").write_text(ODD)
    monkeypatch.setattr(pool, "PATIENCE_SECONDS", 0.1)
    chosen = Config.of({"optimizer": "sgd", "lr": 0.1, "model": "odd:slow"})
    notes: list[str] = []
    with pytest.raises(InputError, match="odd:slow: takes more than 1 s to be built"):
        pool.require_model(chosen, str(tmp_path), tiny_dataset(), 1.0, notes.append)
    assert notes == ["model odd:slow: is still being built and tried; Ctrl-C stops it"]
    assert not multiprocessing.active_children()


def test_the_first_ctrl_c_ends_a_factory_that_hangs(hpo_process: Callable, tmp_path: Path):
    slow = ODD.replace("time.sleep(60)", "open('began', 'w').close(); time.sleep(600)")
    (tmp_path / "odd.py").write_text(slow)
    text = SEARCH.replace("nets:build", "odd:slow")
    text = re.sub(r"(?m)^(units|share|weight_decay) = .*\n", "", text)
    (tmp_path / "mine.toml").write_text(text)
    process = hpo_process("run", "mine.toml")
    wait_for((tmp_path / "began").exists, seconds=60)
    time.sleep(1)  # until the command waits for its answer, as it does when a person sees it hang
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    wait_for(lambda: not processes_in(tmp_path), seconds=10)


def processes_in(folder: Path) -> list[str]:
    """The processes that work in a folder."""
    links = Path("/proc").glob("[0-9]*/cwd")
    return [str(link) for link in links if os.path.realpath(link) == str(folder)]


def test_the_example_under_studies_learns_digits(hpo: Callable, tmp_path: Path):
    answer = hpo(
        "run", str(EXAMPLE / "cnn.toml"), "--quiet", "--trials", "3", "--dataset", "digits",
        timeout=180,
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, "")
    finalists = pd.read_csv(tmp_path / "reports/cnn/finalists.csv")
    assert finalists["test_accuracy"].mean() > 0.85
    assert re.search(r"channels \d+, kernel \d", answer.out)
