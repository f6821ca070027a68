"""What is measured inside a network while it trains: by autograd, and without changing anything."""

import math
from itertools import pairwise

import pytest
import torch
from test_training import (  # noqa: F401
    FEATURES,
    MODULES,
    _one_thread,
    config,
    examples,
    reference_optimizer,
    split,
)
from torch import nn

from hpo.results import trial as record
from hpo.study.config import Config, Seeds
from hpo.training.diagnostics import PROBES
from hpo.training.train import Epoch, Examples, Split, train

OPTIMIZERS = ["sgd", "sgd_momentum", "adam"]


def trained(settings: Config, seeds: list[int], *, diagnose: bool = True) -> list[Epoch]:
    splits = [split(seed) for seed in seeds]
    own = [Seeds.of(seed) for seed in seeds]
    return list(train(settings, examples(), splits, own, diagnose=diagnose))


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_measuring_changes_no_bit_of_what_is_trained(optimizer, seeds):
    settings = config(optimizer=optimizer, lr=0.01, epochs=3, width=16)
    measured, plain = trained(settings, seeds), trained(settings, seeds, diagnose=False)
    for on, off in zip(measured, plain, strict=True):
        assert on.train_loss == off.train_loss
        assert on.valid_accuracy == off.valid_accuracy
        assert off.diagnostics is None
    assert torch.equal(on.network.layers.flat, off.network.layers.flat)


def by_autograd(settings: Config, seed: int) -> tuple[list[list[float]], list[list[float]]]:
    """Gradient norms and update ratios of every step, a list a step of a figure a layer."""
    torch.manual_seed(seed)
    sizes = [FEATURES, *[settings.width] * settings.depth]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), MODULES[settings.activation]()]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
    optimizer = reference_optimizer(model.parameters(), settings)
    data, rows = examples(), split(seed).train
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    weights = [module.weight for module in model if isinstance(module, nn.Linear)]
    norms, ratios = [], []
    for batch in shuffled.split(settings.batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.images[batch]), data.labels[batch]).backward()
        before = [weight.detach().clone() for weight in weights]
        optimizer.step()
        norms.append([weight.grad.norm().item() for weight in weights])
        moved = zip(weights, before, strict=True)
        ratios.append([((w.detach() - old).norm() / old.norm()).item() for w, old in moved])
    return norms, ratios


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_and_updates_are_autograds(optimizer):
    settings = config(optimizer=optimizer, lr=0.05)
    [epoch] = trained(settings, [3])
    norms, ratios = by_autograd(settings, 3)
    every = len(norms) // PROBES
    for measure, steps in (("gradient_norm", norms), ("update_ratio", ratios)):
        probed = torch.tensor(steps)[every // 2 :: every]
        assert len(probed) in (PROBES, PROBES + 1, PROBES + 2)
        found = torch.tensor(epoch.diagnostics[measure])[:, 0]
        torch.testing.assert_close(found, probed.mean(0), rtol=1e-4, atol=1e-7)
    looked_at = ratios[:PROBES] + ratios[every // 2 :: every]
    found = torch.tensor(epoch.diagnostics["largest_update"])[:, 0]
    torch.testing.assert_close(found, torch.tensor(looked_at).amax(0), rtol=1e-4, atol=1e-7)


def hidden_outputs(epoch: Epoch, activation: str, rows: torch.Tensor) -> list[torch.Tensor]:
    state, outputs = epoch.network.state_dict(0), []
    h = examples().images[rows]
    for layer in range(0, len(state) - 2, 2):
        h = MODULES[activation]()(h @ state[f"{layer}.weight"].T + state[f"{layer}.bias"])
        outputs.append(h)
    return outputs


def test_dead_units_are_those_that_are_zero_on_every_image():
    settings = config(activation="relu", lr=3.0, depth=3, width=16, epochs=2)
    epoch = trained(settings, [0])[-1]
    outputs = hidden_outputs(epoch, "relu", split(0).valid)
    shares = [(h <= 0).all(0).float().mean().item() for h in outputs]
    assert [layer[0] for layer in epoch.diagnostics["dead"]] == pytest.approx(shares)
    assert max(shares) > 0
    assert epoch.diagnostics["saturated"] is None


@pytest.mark.parametrize(
    ("activation", "low", "high"), [("sigmoid", 0.01, 0.99), ("tanh", -0.98, 0.98)]
)
def test_saturated_outputs_lie_at_the_flat_ends(activation, low, high):
    settings = config(activation=activation, lr=5.0, epochs=2, width=16)
    epoch = trained(settings, [0])[-1]
    outputs = hidden_outputs(epoch, activation, split(0).valid)
    shares = [((h < low) | (h > high)).float().mean().item() for h in outputs]
    assert [layer[0] for layer in epoch.diagnostics["saturated"]] == pytest.approx(shares)
    assert max(shares) > 0.01
    assert epoch.diagnostics["dead"] is None


def test_shares_are_of_images_though_their_last_chunk_is_smaller():
    """257 images: chunks of 256 and 1."""
    rows = torch.randperm(400, generator=torch.Generator().manual_seed(5))
    parts = Split(rows[:143], rows[143:])
    settings = config(activation="sigmoid", lr=5.0, epochs=2, width=16)
    epoch = list(train(settings, examples(), [parts], [Seeds.of(0)], diagnose=True))[-1]
    outputs = hidden_outputs(epoch, "sigmoid", parts.valid)
    shares = [((h - 0.5).abs() > 0.49).float().mean().item() for h in outputs]
    assert [layer[0] for layer in epoch.diagnostics["saturated"]] == pytest.approx(shares)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_a_network_of_nans_is_neither_dead_nor_saturated(activation):
    data = examples()
    broken = Examples(data.images * math.nan, data.labels)
    settings = config(activation=activation)
    [epoch] = train(settings, broken, [split(0)], [Seeds.of(0)], diagnose=True)
    found = record.attributes([epoch], 0)["diagnostics"]
    assert found["dead" if activation == "relu" else "saturated"] == [[None, None]]


def test_a_gradient_that_squares_to_nothing_is_still_seen():
    [epoch] = trained(config(activation="sigmoid", depth=30, width=16), [0])
    assert all(0 < layer[0] < 1e-15 for layer in epoch.diagnostics["gradient_norm"][:1])


def test_a_stacks_replicates_measure_what_they_measure_alone():
    settings = config(optimizer="adam", lr=0.01, activation="relu", width=16)
    [stacked], [alone] = trained(settings, [0, 1, 2]), trained(settings, [1])
    for measure, layers in stacked.diagnostics.items():
        if layers is not None:
            theirs = alone.diagnostics[measure]
            assert [layer[1] for layer in layers] == pytest.approx([layer[0] for layer in theirs])


def test_a_diverged_trainings_measures_are_plain_json():
    epochs = trained(config(activation="relu", lr=1e6, epochs=3, depth=3), [0])
    found = record.attributes(epochs, 0)["diagnostics"]
    assert set(found) == {"gradient_norm", "update_ratio", "largest_update", "dead"}
    values = [value for measure in found.values() for layers in measure for value in layers]
    assert all(value is None or math.isfinite(value) for value in values)
    assert [len(layers) for layers in found["gradient_norm"]] == [4, 4, 4]
    assert [len(layers) for layers in found["dead"]] == [3, 3, 3]
