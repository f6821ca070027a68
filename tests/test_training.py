"""Training by hand against autograd, alone and stacked."""

import math
import multiprocessing
import sys
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing.connection import Connection

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from tiny import tiny_dataset
from torch import nn

from hpo.study.config import Config, Seeds, with_widths
from hpo.study.names import ACTIVATIONS, INITS, NORMS, OPTIMIZERS, SCHEDULES
from hpo.training import cores
from hpo.training import optimizers as schedules
from hpo.training.evaluation import _correct, evaluate
from hpo.training.tensors import Examples, Split, class_weights, denormals_as_zero
from hpo.training.train import Epoch, train
from hpo.workers import server
from hpo.workers.messages import Done, Task
from hpo.workers.worker import Trainer

FEATURES = 20
COUNTED = 100  # of 320 rows, in these tests
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


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.training.train.COUNTED_ROWS", COUNTED)


def config(**changes) -> Config:
    settings = {"depth": 2, "width": 8, "activation": "tanh", "optimizer": "sgd", "lr": 0.1}
    return Config(**with_widths({**settings, "batch_size": 16, "epochs": 1, **changes}))


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


class Drawn(nn.Module):
    """Dropout, or noise of a standard deviation, whose values a generator of our own draws."""

    def __init__(self, generator: torch.Generator, share: float = 0.0, std: float = 0.0) -> None:
        super().__init__()
        self.generator, self.share, self.std = generator, share, std

    def forward(self, x):
        if not self.training:
            return x
        if self.std:
            return x + torch.empty_like(x).normal_(0, self.std, generator=self.generator)
        kept = torch.empty_like(x).bernoulli_(1 - self.share, generator=self.generator)
        return x * kept / (1 - self.share)


class Skip(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.block(x)


def reference_model(settings: Config, seed: int) -> nn.Sequential:
    """The configuration's network in torch's own layers, with the weights of this seed."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(2**31 + seed)
    widths = [int(width) for width in settings.widths.split("-") if width]
    if not widths:
        widths = [round(settings.width * settings.pyramid**i) for i in range(settings.depth)]
    layers: list[nn.Module] = []
    if settings.input_noise:
        layers.append(Drawn(generator, std=settings.input_noise))
    if settings.input_dropout:
        layers.append(Drawn(generator, settings.input_dropout))
    norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    for place, (fan_in, fan_out) in enumerate(pairwise([FEATURES, *widths])):
        block: list[nn.Module] = [linear(fan_in, fan_out, settings.init)]
        block += [norms[settings.norm](fan_out)] if settings.norm != "none" else []
        block += [Drawn(generator, std=settings.noise)] if settings.noise else []
        block.append(MODULES[settings.activation]())
        block += [Drawn(generator, settings.dropout)] if settings.dropout else []
        layers += [Skip(*block)] if settings.residual and place else block
    return nn.Sequential(*layers, linear(widths[-1], 10, settings.init))


def linear(fan_in: int, fan_out: int, init: str) -> nn.Linear:
    if init == "default":
        return nn.Linear(fan_in, fan_out)
    made = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
    nn.init.zeros_(made.bias)
    if init == "kaiming":
        nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(made.weight)
    return made


def by_autograd(
    settings: Config, seed: int, train_rows: int = 320, weight: torch.Tensor | None = None
) -> nn.Sequential:
    """The same training as an ordinary PyTorch loop; one torch.optim step a batch."""
    model = reference_model(settings, seed)
    optimizer = reference_optimizer(model.parameters(), settings)
    data, rows = examples(), split(seed, train_rows).train
    steps = settings.epochs * math.ceil(train_rows / settings.batch_size)
    schedule = reference_schedule(optimizer, settings.schedule, steps)
    order = torch.Generator().manual_seed(seed)
    steps_of: list[list[torch.Tensor]] = []
    for epoch in range(settings.epochs):
        shuffled = rows[torch.randperm(len(rows), generator=order)]
        for batch in shuffled.split(settings.batch_size):
            optimizer.zero_grad()
            logits, smoothing = model(data.images[batch]), settings.label_smoothing
            loss = nn.functional.cross_entropy(
                logits, data.labels[batch], weight, label_smoothing=smoothing
            )
            loss.backward()
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
            if settings.max_norm:
                limit_norms(model, settings.max_norm)
            steps_of.append([p.detach().double() for p in model.parameters()])
        if settings.ema:
            averaged(model, steps_of, settings.ema)
            full = shuffled[: len(rows) // settings.batch_size * settings.batch_size]
            parts = full.split(settings.batch_size)[: math.ceil(COUNTED / settings.batch_size)]
            if settings.norm == "batch":
                torch.optim.swa_utils.update_bn([data.images[part] for part in parts], model)
            if epoch < settings.epochs - 1:
                averaged(model, steps_of[-1:], 0.5)
    return model.eval()


def averaged(model: nn.Module, steps: list[list[torch.Tensor]], decay: float) -> None:
    """Gives the model the average of its parameters after all steps, the last one first: their
    shares fall by the decay."""
    shares = torch.tensor([decay**age for age in range(len(steps))], dtype=torch.float64).flip(0)
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), zip(*steps, strict=True), strict=True):
            kept = torch.tensordot(shares / shares.sum(), torch.stack(values), 1)
            parameter.copy_(kept)


def limit_norms(model: nn.Sequential, most: float) -> None:
    *hidden, _ = [module for module in model.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for module in hidden:
            module.weight.copy_(torch.renorm(module.weight, 2, 0, most))


def assert_same_weights(epoch: Epoch, replicate: int, model: nn.Sequential) -> None:
    ours, theirs = epoch.network.state_dict(replicate), model.state_dict()
    assert len(ours) == len(theirs)
    cancelled = cancelled_biases(epoch.network.config, ours)
    for (name, own), weight in zip(ours.items(), theirs.values(), strict=True):
        if name in cancelled:
            continue
        error = (own - weight).double().norm() / weight.double().norm()
        assert error < 1e-5, f"{name}: {error:.1e}"


def test_every_name_has_its_code():
    for table in (ACTIVATIONS, OPTIMIZERS, SCHEDULES, INITS):
        assert all(named.load() for named in table.values())
    assert [named.load() for named in NORMS.values()] == [0, 1, 2]
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


def cancelled_biases(settings: Config, names) -> set[str]:
    """The biases that a batch norm takes away again, and its means of them: their gradients are
    rounding, which Adam blows up."""
    if settings.norm != "batch" or settings.optimizer != "adamw":
        return set()
    means = {name for name in names if name.endswith("running_mean")}
    *biases, _ = [name for name in names if name.endswith("bias")]
    return means | set(biases[::2])


WIDER = {
    "dropout": {"dropout": 0.3},
    "input dropout": {"input_dropout": 0.2, "activation": "gelu"},
    "both dropouts": {"dropout": 0.5, "input_dropout": 0.1, "activation": "relu"},
    "input noise": {"input_noise": 0.3},
    "noise and dropout": {"input_noise": 0.3, "input_dropout": 0.2, "dropout": 0.2},
    "noise": {"noise": 0.4},
    "noise before an activation that keeps its input": {"noise": 0.4, "activation": "gelu"},
    "noise, norm, dropout": {"noise": 0.3, "norm": "layer", "dropout": 0.2, "activation": "relu"},
    "noise, residual": {"noise": 0.3, "residual": True, "depth": 3, "input_noise": 0.2},
    "average": {"ema": 0.9, "epochs": 3},
    "average, a batch that is not full": {"ema": 0.8, "epochs": 2, "batch_size": 48},
    "average, clipping, max norm": {"ema": 0.95, "clip_norm": 0.5, "max_norm": 0.7},
    "average, batch norm": {"ema": 0.9, "norm": "batch", "epochs": 2},
    "average, batch norm, noise": {
        "ema": 0.9, "norm": "batch", "epochs": 2, "noise": 0.3, "dropout": 0.2,
    },
    "label smoothing": {"label_smoothing": 0.1},
    "batch norm": {"norm": "batch", "activation": "relu"},
    "batch norm, gelu": {"norm": "batch", "activation": "gelu"},
    "layer norm": {"norm": "layer", "activation": "relu"},
    "layer norm, silu": {"norm": "layer", "activation": "silu"},
    "residual": {"residual": True, "depth": 3},
    "residual, gelu": {"residual": True, "depth": 4, "activation": "gelu"},
    "residual, norm, dropout": {"residual": True, "depth": 3, "norm": "batch", "dropout": 0.2},
    "kaiming": {"init": "kaiming", "activation": "relu"},
    "xavier": {"init": "xavier"},
    "clipping": {"clip_norm": 0.5},
    "clipping with norm": {"clip_norm": 0.5, "norm": "layer"},
    "max norm": {"max_norm": 0.7},
    "widths": {"widths": [16, 8, 24]},
    "pyramid": {"pyramid": 0.5, "depth": 3, "width": 16},
    "all together": {
        "residual": True, "depth": 3, "norm": "layer", "dropout": 0.2, "input_dropout": 0.1,
        "input_noise": 0.1, "label_smoothing": 0.1, "init": "kaiming", "clip_norm": 1.0,
        "max_norm": 2.0, "noise": 0.1, "ema": 0.9, "weight_decay": 0.01, "schedule": "cosine",
        "activation": "relu",
    },
}  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_momentum", "adamw"])
@pytest.mark.parametrize("changes", WIDER.values(), ids=WIDER)
def test_the_wider_space_is_autograds_alone_and_stacked(changes, optimizer):
    lr = 0.05 if optimizer.startswith("sgd") else 1e-3
    settings = config(**{"optimizer": optimizer, "lr": lr, **changes})
    alone, stacked = last_epoch(settings, [1]), last_epoch(settings, [0, 1, 2])
    assert_same_weights(alone, 0, by_autograd(settings, 1))
    for replicate in range(3):
        model = by_autograd(settings, replicate)
        assert_same_weights(stacked, replicate, model)
        rows = split(replicate).valid
        with torch.no_grad():
            loss = nn.functional.cross_entropy(
                model(examples().images[rows]), examples().labels[rows]
            )
        exact = 1e-3 if cancelled_biases(settings, stacked.network.state_dict()) else 1e-5
        assert stacked.valid_loss[replicate] == pytest.approx(loss.item(), rel=exact)


@pytest.mark.parametrize("given", ["balanced", {"3": 20, "7": 0.5}])
@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adam", "lr": 1e-3, "label_smoothing": 0.1}, {"clip_norm": 0.1}]
)
def test_class_weights_are_autograds_alone_and_stacked(changes, given):
    """F.cross_entropy(weight=…) with its mean: over the weights of the batch."""
    settings, data, seeds = config(**changes), examples(), [0, 1, 2]
    splits, own = [split(seed) for seed in seeds], [Seeds.of(seed) for seed in seeds]
    weights = class_weights(given, data, splits, [str(label) for label in range(10)])
    assert weights is not None
    [stacked] = train(settings, data, splits, own, weights=weights)
    for seed in seeds:
        model = by_autograd(settings, seed, weight=weights[seed])
        assert_same_weights(stacked, seed, model)
        with torch.no_grad():
            answer = model(data.images[splits[seed].valid])
        loss = nn.functional.cross_entropy(answer, data.labels[splits[seed].valid]).item()
        assert stacked.valid_loss[seed] == pytest.approx(loss, rel=1e-5), "without weights"
        alone = weights[seed : seed + 1]
        [single] = train(settings, data, [splits[seed]], [own[seed]], weights=alone)
        assert single.train_loss[0] != last_epoch(settings, [seed]).train_loss[0]


def test_balanced_weights_are_those_of_scikit_learn():
    data, splits = examples(), [split(seed) for seed in range(3)]
    found = class_weights("balanced", data, splits, [str(label) for label in range(10)])
    for weights, part in zip(found, splits, strict=True):
        labels = data.labels[part.train].numpy()
        wanted = compute_class_weight("balanced", classes=np.arange(10), y=labels)
        np.testing.assert_allclose(weights, wanted, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weighted_replicate_does_not_feel_its_stack(smoothing):
    settings = config(width=16, epochs=2, label_smoothing=smoothing)
    data, splits, own = examples(), [split(s) for s in range(3)], [Seeds.of(s) for s in range(3)]
    weights = class_weights("balanced", data, splits, [str(label) for label in range(10)])
    stacked = list(train(settings, data, splits, own, weights=weights))[-1]
    for place in range(3):
        part = slice(place, place + 1)
        single = list(train(settings, data, splits[part], own[part], weights=weights[part]))[-1]
        assert single.train_loss[0] == stacked.train_loss[place]
        assert single.valid_loss[0] == stacked.valid_loss[place]


def test_every_hyperparameter_of_the_wider_space_changes_the_training():
    plain = last_epoch(config(depth=3), [1]).train_loss
    for name, changes in WIDER.items():
        assert last_epoch(config(**{"depth": 3, **changes}), [1]).train_loss != plain, name


@pytest.mark.parametrize("changes", WIDER.values(), ids=WIDER)
@pytest.mark.parametrize("shape", [{}, {"width": 16, "batch_size": 24}])
def test_a_replicate_does_not_feel_its_stack_in_the_wider_space(changes, shape):
    settings = config(**{"epochs": 2, "lr": 0.01, **shape, **changes})
    alone, stacked = last_epoch(settings, [2]), last_epoch(settings, [0, 1, 3, 2, 4])
    assert alone.valid_loss[0] == stacked.valid_loss[3]
    weights = stacked.network.state_dict(3)
    for name, weight in alone.network.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_the_average_after_one_step_is_the_weights_after_it():
    """Without a bias of the start: a decay near 1 does not hold back an early epoch."""
    plain, average = (
        last_epoch(config(batch_size=320, ema=ema), [1]).network.state_dict()
        for ema in (0.0, 0.9999)
    )
    for name, weight in plain.items():
        assert torch.equal(weight, average[name]), name


def test_training_goes_on_with_its_own_weights_beside_the_average():
    plain, average = (last_epoch(config(epochs=3, ema=ema), [1]) for ema in (0.0, 0.99))
    assert average.train_loss == plain.train_loss
    assert average.valid_loss != plain.valid_loss


@pytest.mark.parametrize("seed", range(4))
def test_a_kept_epoch_of_the_average_is_that_epochs_network(seed):
    common = {"epochs": 8, "lr": 0.05, "ema": 0.9, "norm": "batch", "optimizer": "adam"}
    kept, rows = last_epoch(config(**common, keep="best"), [seed]), split(seed)
    assert kept.kept is not None
    epochs = train(config(**common), examples(), [rows], [Seeds.of(seed)])
    then = next(epoch for epoch in epochs if epoch.number == kept.kept[0])
    weights = kept.network.state_dict()
    for name, weight in then.network.state_dict().items():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.parametrize("ema", [-0.1, 1.0, 2])
def test_an_average_needs_a_decay_below_one(ema):
    with pytest.raises(ValueError, match="ema"):
        config(ema=ema)


def test_extras_name_noise_and_average_and_never_round_a_decay_to_one():
    found = config(noise=0.25, ema=0.9999, momentum=0.9995).extras()
    assert {"noise 0.25", "ema 0.9999", "momentum 0.9995"} <= set(found.split(", "))


def test_warm_up_rises_to_the_schedule(monkeypatch):
    rates = []
    make = OPTIMIZERS["adam"].load()

    def noted(*arguments):
        step = make(*arguments)
        return lambda lr: (rates.append(lr), step(lr))

    monkeypatch.setattr("hpo.training.optimizers.adam", noted)
    last_epoch(config(optimizer="adam", lr=1.0, warmup=0.25, schedule="linear"), [0])
    expected = [min((step + 1) / 5, 1) * (1 - step / 20) for step in range(20)]
    assert rates == pytest.approx(expected)


def test_step_and_one_cycle_are_torchs():
    n, parameter = 4000, nn.Parameter(torch.zeros(1))
    for name in ("step", "one_cycle"):
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        by_torch = torch.optim.lr_scheduler
        theirs = by_torch.MultiStepLR(optimizer, [n // 2, 3 * n // 4])
        if name == "one_cycle":
            theirs = by_torch.OneCycleLR(optimizer, 1.0, total_steps=n, cycle_momentum=False)
        ours = getattr(schedules, name)
        for done in range(n):
            assert ours(done / n) == pytest.approx(theirs.get_last_lr()[0], abs=2e-3)
            optimizer.step()
            theirs.step()


def test_training_does_not_load_torchs_compiler():
    """Which every worker of every run would pay for, by 1.5 s of CPU."""
    server.preload()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_trained_modules, args=(theirs,))
    process.start()
    theirs.close()
    loaded = ours.recv()
    process.join()
    assert "hpo.training.optimizers" in loaded
    assert "torch._dynamo" not in loaded


def _trained_modules(channel: Connection) -> None:
    """Sends which modules a worker has loaded once it has trained with each optimizer."""
    for optimizer in OPTIMIZERS:
        last_epoch(config(optimizer=optimizer), [0])
    channel.send(list(sys.modules))


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


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="cores help MKL's products only")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "shape",
    [
        {"widths": [512, 512]},
        {"widths": [300, 700], "batch_size": 37, "residual": False},
        {"depth": 3, "width": 384, "residual": True, "activation": "gelu", "batch_size": 24},
    ],
)
def test_the_bits_do_not_depend_on_the_number_of_cores(shape, optimizer):
    generator = torch.Generator().manual_seed(0)
    data = Examples(
        torch.randn(700, 784, generator=generator),
        torch.randint(0, 10, (700,), generator=generator),
    )
    settings = config(**{"batch_size": 64, "lr": 0.01, "optimizer": optimizer, **shape})
    used = []

    def trained(count: int) -> Epoch:
        cores.use(count)
        used.clear()
        return list(train(settings, data, [split(0, 560, 700)], [Seeds.of(0)]))[-1]

    before = cores._Threads.__enter__
    try:
        cores._Threads.__enter__ = lambda self: (before(self), used.append(torch.get_num_threads()))
        alone = trained(1)
        for count in (2, 3, 5):
            together = trained(count)
            assert torch.get_num_threads() == 1
            assert 1 < max(used) <= min(count, min(settings.hidden) // cores.COLUMNS)
            assert together.train_loss == alone.train_loss
            assert together.valid_loss == alone.valid_loss
            weights = together.network.state_dict()
            for name, weight in alone.network.state_dict().items():
                assert torch.equal(weight, weights[name]), name
    finally:
        cores._Threads.__enter__ = before
        cores.use(1)


def test_products_use_only_as_many_cores_as_give_the_same_bits():
    shape = (2, 64, 300, 300)

    def rounded_by(threads: set[int]) -> cores.Product:
        """A product that other numbers of threads compute in another order."""
        return lambda x, w, d: (x @ w) * (1 if torch.get_num_threads() in threads else 1.0001)

    try:
        assert cores.same_bits(rounded_by({1, 2, 3, 4}), shape, 4) == 4
        assert cores.same_bits(rounded_by({1, 2}), shape, 4) == 2
        assert cores.same_bits(rounded_by({1}), shape, 4) == 1
        cores.use(4)
        with cores.for_product(rounded_by({1, 2}), shape):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    finally:
        cores.use(1)
        torch.set_num_threads(1)


def test_small_products_use_one_core():
    for shape in ((1, 64, 784, 32), (1, 8, 784, 512), (1, 64, 512, 10)):
        assert not isinstance(cores.for_product(cores.PRODUCTS["forward"], shape), cores._Threads)


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


def test_denormal_numbers_count_as_zero_while_a_task_is_trained():
    tiny = torch.tensor([1e-30])
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot take them as zero")
    with denormals_as_zero():
        assert (tiny * tiny[0] * 1e20).item() == 0, "1e-40 is a denormal"
        with denormals_as_zero():
            pass
        assert (tiny * 1e-10).item() == 0, "an inner block leaves it as it was"
    assert (tiny * 1e-10).item() != 0


def test_a_worker_trains_with_denormals_as_zero():
    seen = []

    def should_stop() -> bool:
        seen.append((torch.tensor([1e-30]) * 1e-10).item())
        return False

    can = torch.set_flush_denormal(False)
    task = Task(id=1, config=config(), seeds=(Seeds.of(0),))
    trainer = Trainer(tiny_dataset(), torch.device("cpu"))
    ended = list(trainer.answers(task, should_stop))
    assert isinstance(ended[-1], Done)
    assert {value == 0 for value in seen} == {can}
