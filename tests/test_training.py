"""Training by hand against autograd, alone and stacked."""

import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from hpo.study.config import Config, Seeds
from hpo.study.names import ACTIVATIONS, OPTIMIZERS, SCHEDULES
from hpo.training.train import Epoch, Examples, Split, _correct, evaluate, train

FEATURES = 20
MODULES = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a worker: how threads share a kernel's work decides over last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**changes) -> Config:
    settings = {"depth": 2, "width": 8, "activation": "tanh", "optimizer": "sgd", "lr": 0.1}
    return Config(**{**settings, "batch_size": 16, "epochs": 1, **changes})


def examples(n: int = 400) -> Examples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, FEATURES, generator=generator)
    return Examples(images, torch.randint(0, 10, (n,), generator=generator))


def split(seed: int, train_rows: int = 320, n: int = 400) -> Split:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1000 + seed))
    return Split(order[:train_rows], order[train_rows:])


def last_epoch(settings: Config, seeds: list[int], **kwargs) -> Epoch:
    splits = [split(seed, **kwargs) for seed in seeds]
    return list(train(settings, examples(), splits, [Seeds.of(seed) for seed in seeds]))[-1]


def reference_optimizer(parameters, settings: Config) -> torch.optim.Optimizer:
    decay = settings.weight_decay
    sgd = {"momentum": settings.momentum, "nesterov": settings.nesterov}
    if settings.optimizer == "sgd_momentum":
        sgd["momentum"] = settings.momentum or 0.9
    make = {
        "sgd": lambda: torch.optim.SGD(parameters, settings.lr, weight_decay=decay, **sgd),
        "sgd_momentum": lambda: torch.optim.SGD(parameters, settings.lr, weight_decay=decay, **sgd),
        "adam": lambda: torch.optim.Adam(parameters, settings.lr, weight_decay=decay),
        "adamw": lambda: torch.optim.AdamW(parameters, settings.lr, weight_decay=decay),
        "rmsprop": lambda: torch.optim.RMSprop(
            parameters, settings.lr, weight_decay=decay, momentum=settings.momentum
        ),
    }
    return make[settings.optimizer]()


def reference_schedule(optimizer, name: str, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    schedulers = torch.optim.lr_scheduler
    if name == "linear":
        return schedulers.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    if name == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, T_max=steps)
    return schedulers.ConstantLR(optimizer, factor=1.0)


def by_autograd(settings: Config, seed: int, train_rows: int = 320) -> nn.Sequential:
    """The same training as an ordinary PyTorch loop; one torch.optim step a batch."""
    torch.manual_seed(seed)
    sizes = [FEATURES, *[settings.width] * settings.depth]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), MODULES[settings.activation]()]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
    optimizer = reference_optimizer(model.parameters(), settings)
    data, rows = examples(), split(seed, train_rows).train
    steps = settings.epochs * math.ceil(train_rows / settings.batch_size)
    schedule = reference_schedule(optimizer, settings.schedule, steps)
    order = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        shuffled = rows[torch.randperm(len(rows), generator=order)]
        for batch in shuffled.split(settings.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(data.images[batch]), data.labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def assert_same_weights(epoch: Epoch, replicate: int, model: nn.Sequential) -> None:
    ours, theirs = epoch.network.state_dict(replicate), model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        error = (ours[name] - weight).norm() / weight.norm()
        assert error < 1e-5, f"{name}: {error:.1e}"


def test_every_name_has_its_code():
    for table in (ACTIVATIONS, OPTIMIZERS, SCHEDULES):
        assert all(named.load() for named in table.values())
    assert {name: getattr(nn, named.module) for name, named in ACTIVATIONS.items()} == MODULES


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_twenty_steps_give_autograds_weights_alone_and_stacked(activation, optimizer, depth):
    lr = 0.1 if optimizer.startswith("sgd") else 1e-3
    settings = config(activation=activation, optimizer=optimizer, depth=depth, lr=lr)
    alone, stacked = last_epoch(settings, [1]), last_epoch(settings, [0, 1, 2])
    assert_same_weights(alone, 0, by_autograd(settings, 1))
    for replicate in range(3):
        assert_same_weights(stacked, replicate, by_autograd(settings, replicate))


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.8},
        {"momentum": 0.8, "nesterov": True},
        {"weight_decay": 0.01},
        {"optimizer": "sgd_momentum", "nesterov": True, "weight_decay": 0.01},
        {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.01},
        {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1},
        {"optimizer": "rmsprop", "lr": 1e-3, "weight_decay": 0.01, "momentum": 0.5},
    ],
)
def test_momentum_nesterov_and_weight_decay_are_torch_optims(changes):
    settings = config(**changes, epochs=2)
    assert_same_weights(last_epoch(settings, [3]), 0, by_autograd(settings, 3))


def test_training_does_not_load_torchs_compiler():
    """Which every worker of every run would pay for, by 1.5 s of CPU."""
    code = """if True:
        import sys
        from test_training import OPTIMIZERS, config, last_epoch
        for optimizer in OPTIMIZERS:
            last_epoch(config(optimizer=optimizer), [0])
        print("torch._dynamo" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_schedules_are_torch_optims(optimizer, schedule):
    lr = 0.1 if optimizer.startswith("sgd") else 1e-3
    settings = config(optimizer=optimizer, schedule=schedule, epochs=3, lr=lr)
    epoch = last_epoch(settings, [0, 3], train_rows=310)
    for replicate, seed in enumerate((0, 3)):
        assert_same_weights(epoch, replicate, by_autograd(settings, seed, train_rows=310))


def test_a_last_smaller_batch_is_trained_on():
    settings = config(epochs=2)
    epoch = last_epoch(settings, [0, 1], train_rows=310)
    for replicate in (0, 1):
        assert_same_weights(epoch, replicate, by_autograd(settings, replicate, train_rows=310))


def test_a_dataset_smaller_than_a_batch_is_one_batch():
    settings = config(batch_size=1000, epochs=2)
    assert_same_weights(last_epoch(settings, [0]), 0, by_autograd(settings, 0))


@pytest.mark.parametrize(
    "shape", [{}, {"width": 16, "batch_size": 24}, {"width": 48, "depth": 3, "batch_size": 56}]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "elu"])
def test_a_replicate_does_not_feel_its_stack(activation, optimizer, shape):
    settings = config(activation=activation, optimizer=optimizer, epochs=2, lr=0.01, **shape)
    alone, stacked = last_epoch(settings, [2]), last_epoch(settings, [0, 1, 3, 2, 4])
    for metric in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy"):
        assert getattr(alone, metric)[0] == getattr(stacked, metric)[3]
    weights = stacked.network.state_dict(3)
    for name, weight in alone.network.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_validation_in_several_chunks_does_not_feel_the_stack_either():
    generator = torch.Generator().manual_seed(0)
    data = Examples(
        torch.randn(1800, FEATURES, generator=generator),
        torch.randint(0, 10, (1800,), generator=generator),
    )
    splits = [split(seed, train_rows=800, n=1800) for seed in range(5)]
    seeds = [Seeds.of(seed) for seed in range(5)]
    stacked = list(train(config(), data, splits, seeds))[-1]
    for replicate in range(5):
        alone = list(train(config(), data, [splits[replicate]], [seeds[replicate]]))[-1]
        assert alone.valid_loss[0] == stacked.valid_loss[replicate]


def test_accuracy_is_argmaxs_where_logits_tie_or_overflow():
    labels = torch.tensor([[0, 1, 2]])
    logits = torch.zeros(1, 10, 3)
    logits[0, :, 1] = math.inf
    logits[0, 2, 2] = math.nan
    expected = int((logits.argmax(1) == labels).sum())
    assert _correct(logits, labels) == expected
    clear = torch.randn(4, 10, 64, generator=torch.Generator().manual_seed(0))
    truth = torch.randint(0, 10, (4, 64), generator=torch.Generator().manual_seed(1))
    assert _correct(clear, truth) == int((clear.argmax(1) == truth).sum())


def test_metrics_are_running_means_in_training_and_means_in_validation():
    settings = config(lr=1e-30)  # the weights stand still, so both can be had from the end
    epoch = last_epoch(settings, [5])
    model, data, rows = by_autograd(settings, 5), examples(), split(5)
    for part, indices in (("train", rows.train), ("valid", rows.valid)):
        with torch.no_grad():
            logits = model(data.images[indices])
        labels = data.labels[indices]
        loss = nn.functional.cross_entropy(logits, labels).item()
        accuracy = (logits.argmax(1) == labels).double().mean().item()
        assert getattr(epoch, f"{part}_loss")[0] == pytest.approx(loss, rel=1e-5)
        assert getattr(epoch, f"{part}_accuracy")[0] == pytest.approx(accuracy)


def test_evaluation_in_chunks_covers_every_row():
    epoch = last_epoch(config(), [0, 1])
    data = examples(n=600)
    rows = torch.arange(600).expand(2, -1)
    losses, *_ = evaluate(epoch.network, data, rows)
    for replicate in (0, 1):
        model = nn.Sequential(
            nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 10)
        )
        model.load_state_dict(epoch.network.state_dict(replicate))
        with torch.no_grad():
            expected = nn.functional.cross_entropy(model(data.images), data.labels).item()
        assert losses[replicate] == pytest.approx(expected, rel=1e-5)


def test_a_diverged_run_leaves_its_neighbours_in_the_stack_alone():
    settings = config(activation="relu", lr=0.1)
    data = examples()
    poisoned = Examples(data.images.clone(), data.labels)
    first, second = split(0), split(1)
    row = first.train[0]
    poisoned.images[row] = math.inf
    spared = Split(second.train[second.train != row], second.valid[second.valid != row])
    rows = (len(spared.train), len(spared.valid))
    first = Split(first.train[: rows[0]], first.valid[: rows[1]])
    seeds = [Seeds.of(0), Seeds.of(1)]
    epoch = list(train(settings, poisoned, [first, spared], seeds))[-1]
    assert not math.isfinite(epoch.train_loss[0])
    assert math.isfinite(epoch.train_loss[1])
    assert math.isfinite(epoch.valid_loss[1])


def test_training_stops_where_iteration_stops():
    epochs = train(config(epochs=1000), examples(), [split(0)], [Seeds.of(0)])
    assert next(epochs).number == 1
    assert next(epochs).number == 2
    epochs.close()


def test_initial_weights_are_those_of_nn_linear():
    epoch = last_epoch(config(lr=1e-30), [7])
    torch.manual_seed(7)
    first = nn.Linear(FEATURES, 8)
    assert torch.equal(epoch.network.state_dict()["0.weight"], first.weight)
    assert torch.equal(epoch.network.state_dict()["0.bias"], first.bias)
