"""The user's own network: built by a factory, trained by autograd with hpo's optimizers."""

import math
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, huber_loss, mse_loss
from torch.nn.parameter import is_lazy

from hpo.data.datasets import Labels
from hpo.data.schema import Floats, input_shape
from hpo.errors import InputError
from hpo.study.config import Config, Seeds
from hpo.study.names import FLOAT32, OPTIMIZERS
from hpo.text import error_line
from hpo.training.noise import OFFSET, Generators
from hpo.training.optimizers import Step
from hpo.training.tensors import Examples


def build(config: Config, folder: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Calls the factory with shape, classes and the configuration's own hyperparameters.

    folder: where the factory's module lies, if it is not installed. Raises InputError if it does
    not import, or returns no module that can be trained.
    """
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    with _explained(f"model {config.model}"):
        factory = pkgutil.resolve_name(config.model)
        made = factory(shape=shape, classes=classes, **config.own)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # for the trials that follow
    if fault := _fault_in(made, usual):
        raise InputError(f"model {config.model}: {fault}")
    return made  # type: ignore[no-any-return]


def _fault_in(made: Any, usual: torch.dtype) -> str:
    """Returns why what a factory has made cannot be trained; empty if it can be. usual: torch's
    default dtype."""
    if not isinstance(made, nn.Module):
        return f"returns a {type(made).__name__}; return a torch.nn.Module"
    if isinstance(made, torch.jit.ScriptModule):
        return "returns a TorchScript module, which hpo cannot train; return the module itself"
    if usual != torch.float32:
        return f"sets torch's default dtype to {usual}; leave that out, hpo trains in float32"
    if any(map(is_lazy, made.parameters())):
        return "has a lazy layer such as LazyLinear; give its size, which shape and classes tell"
    trained = [parameter for parameter in made.parameters() if parameter.requires_grad]
    if not trained:
        return "has no parameters to train"
    others = {str(p.dtype) for p in trained} - {"torch.float32"}
    return f"has parameters of {others.pop()}; hpo trains in float32" if others else ""


# --- before the first trial --------------------------------------------------------------------

TRIED = (0, 1, 0)  # seeds that a network is built with before the first trial


def try_model(
    config: Config,
    folder: str,
    shape: Sequence[int],
    images: Floats,
    labels: Labels,
    classes: int,
) -> str:
    """Builds networks, evaluates them and trains a step on a few rows. Returns what the user should
    know, empty if there is nothing. Raises InputError if they cannot be trained well."""
    torch.set_num_threads(1)  # as in a worker
    rows, seeds = torch.from_numpy(images), [Seeds.of(seed) for seed in TRIED]
    given = f" (tried with {config.layers})" if config.own else ""
    examples = Examples(rows, torch.from_numpy(labels), classes, tuple(shape))
    try:
        with _explained(f"model {config.model}"):
            network = OwnNetwork(config, folder, examples, seeds, torch.device("cpu"))
            note = _check_weights(network)
            check_evaluation(network, rows)
            _check_training(network, examples)
    except InputError as error:
        raise InputError(f"{error}{given}") from error
    return note


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns errors of the user's code into InputError. what: its first words."""
    try:
        yield
    except InputError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # a signal cannot raise it in a worker
        raise InputError(f"{what}: {error_line(error)}") from error


def _check_weights(network: "OwnNetwork") -> str:
    """Compares networks of different seeds and of the same one. Returns what the user should know.

    The same weights for all seeds are right for a network without random weights and for one that
    starts from a file. So they are refused only where the factory has set a seed, which shows in
    the numbers that the generators draw after it; otherwise a note tells of them.
    """
    name = f"model {network.config.model}: builds"
    first, other, again = map(network.state_dict, range(len(TRIED)))
    if not _same(first, again):
        raise InputError(
            f"{name} other weights when the seed is the same; draw them from the global generators "
            "of torch, NumPy or Python, which hpo seeds"
        )
    if not _same(first, other) or all(bool((v == v.flatten()[:1]).all()) for v in first.values()):
        return ""
    draws, others = (network.drawn[replicate].next_draws() for replicate in (0, 1))
    if seeded := [seeds for seeds, drawn in draws.items() if drawn == others[seeds]]:
        raise InputError(
            f"{name} the same weights for every seed: it calls {' and '.join(seeded)}; leave that "
            "out, hpo seeds torch, NumPy and Python before it"
        )
    return (
        f"{name} the same weights for every seed; seeds change only split, batch order and dropout"
    )


def _same(first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return first.keys() == other.keys() and all(
        torch.equal(value.nan_to_num(), other[name].nan_to_num()) for name, value in first.items()
    )


def check_evaluation(network: "OwnNetwork", rows: Tensor) -> None:
    """Evaluates the first network on a few rows. Raises InputError if it gives something else than
    logits that depend on each row alone. Each trial asks: other hyperparameters may give others."""
    module, answers = network.modules[0].eval(), []
    for seed, given in ((0, rows), (1, rows), (0, rows[:1].expand_as(rows))):
        with Generators(seed, rows.device).used(), torch.no_grad():
            answers.append(_answer(network, given))
    logits, again, alone = answers
    sums = logits.sum(1)
    faults = {
        "is still in training mode after .eval()": any(m.training for m in module.modules()),
        "gives logits that are not finite before any training": not logits.isfinite().all(),
        "gives other logits for the same rows in evaluation; leave out what is random there, such "
        "as F.dropout without training=self.training, or changes rows or module": not torch.equal(
            logits, again
        ),
        "gives a row other logits beside other rows; leave out what mixes the rows of a batch": (
            not torch.allclose(logits[0], alone[0], rtol=1e-3, atol=1e-4)
        ),
        "gives probabilities; give logits: leave out the softmax": (
            network.classes > 1
            and (logits >= 0).all()
            and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
        ),
    }
    for fault, there in faults.items():
        if there:
            raise InputError(f"model {network.config.model}: {fault}")


def _check_training(network: "OwnNetwork", examples: Examples) -> None:
    rows = examples.images
    network.modules[0].train()
    with Generators(0, rows.device).used():
        _answer(network, rows, " in training mode")
    with _explained(f"model {network.config.model}: cannot be trained"):
        trainer = OwnTrainer(network, lambda step: network.config.lr, lambda step: None)
        trainer.epoch(examples, torch.arange(len(rows)).expand(len(TRIED), -1))
    first, _, again = (dict(module.named_parameters()) for module in network.modules)
    if not _same(first, again):
        raise InputError(
            f"model {network.config.model}: the same seed trains to other weights; draw from the "
            "global generators of torch, NumPy or Python, which hpo seeds"
        )


def _answer(network: "OwnNetwork", rows: Tensor, mode: str = "") -> Tensor:
    """Returns the first network's logits. Raises InputError if it gives something else. mode: in
    words."""
    model, shape = f"model {network.config.model}", ", ".join(map(str, network.shape))
    with _explained(f"{model}: cannot take inputs of shape ({len(rows)}, {shape}){mode}"):
        answer = network(0, rows)
    kind, wanted = type(answer).__name__, (len(rows), network.classes)
    if isinstance(answer, Tensor):
        if answer.shape == wanted and answer.dtype == torch.float32:
            return answer
        kind = str(tuple(answer.shape) if answer.shape != wanted else answer.dtype)
    inputs = f"{len(rows)} inputs of shape ({shape}){mode}"
    raise InputError(f"{model}: gives {kind} for {inputs}; give logits of shape {wanted}")


class OwnNetwork:
    """R modules of one configuration, one per seed. The interface is that of network.Network.

    The parameters of each are views of one flat vector, so that hpo's optimizers step on it.
    """

    def __init__(
        self,
        config: Config,
        folder: str,
        examples: Examples,
        seeds: Sequence[Seeds],
        device: torch.device,
    ) -> None:
        """folder: where the factory's module lies. examples: such as the network takes."""
        self.config, self.classes, self.precision = config, examples.classes, FLOAT32
        self.shape = input_shape(examples.shape, examples.images.shape[1])
        self.rows = examples.shape if len(self.shape) == 3 else self.shape
        self.replicates = len(seeds)
        self.modules: list[nn.Module] = []
        self.drawn = [Generators(seed.weights, device) for seed in seeds]
        self.noise = [OFFSET + seed.order for seed in seeds]
        for drawn in self.drawn:
            with drawn.used():
                self.modules.append(build(config, folder, self.shape, self.classes).to(device))
        parts = [p for module in self.modules for p in module.parameters() if p.requires_grad]
        if len(set(map(id, parts))) < len(parts):
            raise InputError(
                f"model {config.model}: returns the same module, or the same parameters, again; "
                "make new ones in each call"
            )

    @property
    def parameters(self) -> int:
        """Returns the number of parameters of one replicate."""
        return sum(parameter.numel() for parameter in self.modules[0].parameters())

    def state_dict(self, replicate: int = 0) -> dict[str, Tensor]:
        """Returns one replicate's parameters and buffers."""
        state = self.modules[replicate].state_dict()
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def copied(self, replicate: int) -> dict[str, Tensor]:
        """Returns copies of one replicate's parameters and buffers, see restore."""
        return {name: tensor.detach().clone() for name, tensor in self._tensors(replicate).items()}

    def restore(self, replicate: int, copied: Mapping[str, Tensor]) -> None:
        """Makes one replicate what it was when it was copied; it is not trained any further."""
        for name, tensor in self._tensors(replicate).items():
            tensor.data = copied[name]

    def _tensors(self, replicate: int) -> dict[str, Tensor]:
        """Returns parameters and buffers, also those that state_dict leaves out."""
        module = self.modules[replicate]
        return {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def logits(self, images: Tensor, rows: Tensor, classes: int) -> Tensor:
        """Returns the logits of rows, (steps, R, B), of images, (steps, R, classes, B). What a
        network draws here depends on its seed alone."""
        answers = []
        with torch.inference_mode():
            for replicate, module in enumerate(self.modules):
                module.eval()
                with Generators(self.noise[replicate], images.device).used():
                    parts = [self(replicate, images[part]).T for part in rows[:, replicate]]
                answers.append(torch.stack(parts))
        return torch.stack(answers, dim=1)

    def __call__(self, replicate: int, images: Tensor) -> Tensor:
        inputs = images.unflatten(1, self.rows)
        if len(self.rows) == 3:  # colours lie last in a row, and first in a module's input
            inputs = inputs.movedim(3, 1).contiguous()
        answer: Tensor = self.modules[replicate](inputs.reshape(-1, *self.shape))
        return answer


def _flat(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Makes a module's parameters, and their gradients, views of one flat vector each; returns
    these."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = torch.cat([parameter.detach().flatten() for parameter in trained])
    gradient = torch.zeros_like(weights)
    sizes = [parameter.numel() for parameter in trained]
    parts = zip(trained, weights.split(sizes), gradient.split(sizes), strict=True)
    for parameter, values, slopes in parts:
        parameter.data, parameter.grad = values.view_as(parameter), slopes.view_as(parameter)
    return weights, gradient


def _loss(logits: Tensor, truth: Tensor, huber: float = 0.0, **more: Any) -> Tensor:
    """Returns the cross entropy; of a regression, whose truth is numbers, squared or Huber's error.
    more: arguments of torch's function, those of classes alone among them."""
    if not truth.is_floating_point():
        return cross_entropy(logits, truth, **more)
    more = {"reduction": more.get("reduction", "mean")}
    return (
        huber_loss(logits[:, 0], truth, delta=huber, **more)
        if huber
        else mse_loss(logits[:, 0], truth, **more)
    )


class OwnTrainer:
    """The steps of an optimizer over the user's own modules, one replicate after another."""

    def __init__(
        self,
        network: OwnNetwork,
        rate: Callable[[int], float],
        check: Callable[[int], None],
        weights: Tensor | None = None,
    ) -> None:
        """rate: the learning rate of a step, by its number. check: called at every step with its
        number in the epoch; raises to end the epoch. weights: see train.train."""
        self.weights = [None] * network.replicates if weights is None else [*weights]
        self.network, self.rate, self.check = network, rate, check
        config, vectors = network.config, [_flat(module) for module in network.modules]
        make = OPTIMIZERS[config.optimizer].load()
        self.gradients = [gradient for _, gradient in vectors]
        self.optimizers: list[Step] = [make(*vector, config) for vector in vectors]
        self.drawn = [Generators(seed, self.gradients[0].device) for seed in network.noise]
        self.done = 0

    def epoch(self, examples: Examples, order: Tensor) -> tuple[list[float], list[float]]:
        """Trains on the rows of order, (R, n), in batches. Returns each replicate's loss and
        accuracy."""
        losses, accuracies, before = [], [], self.done
        for replicate, rows in enumerate(order):
            self.done = before
            with self.drawn[replicate].used():
                loss, right = self._epoch(replicate, examples, rows)
            losses.append(loss / len(rows))
            accuracies.append(right / len(rows))
        return losses, accuracies

    def measures(self, examples: Examples, valid: Tensor) -> None:
        """None: diagnosis knows hpo's own network only."""

    def _epoch(self, replicate: int, examples: Examples, rows: Tensor) -> tuple[float, float]:
        """Returns the summed loss, unsmoothed and unweighted, and how many are right, NaN of a
        regression."""
        config, loss, right = self.network.config, 0.0, 0
        self.network.modules[replicate].train()
        for step, batch in enumerate(rows.split(config.batch_size)):
            self.check(step)
            inputs, truth = examples.images[batch], examples.labels[batch]
            if config.input_noise:
                inputs = inputs + config.input_noise * torch.randn_like(inputs)
            logits = self.network(replicate, inputs)
            self._step(replicate, logits, truth)
            with torch.no_grad():
                loss += float(_loss(logits, truth, reduction="sum"))
                right += int((logits.argmax(1) == truth).sum())
        return loss, math.nan if examples.regression else right

    def _step(self, replicate: int, logits: Tensor, truth: Tensor) -> None:
        config, gradient = self.network.config, self.gradients[replicate]
        gradient.zero_()
        weight, smoothing = self.weights[replicate], config.label_smoothing
        more: Any = {"huber": config.huber, "weight": weight, "label_smoothing": smoothing}
        _loss(logits, truth, **more).backward()
        if config.clip_norm:
            norm = torch.linalg.vector_norm(gradient)
            gradient.mul_(torch.clamp_max(config.clip_norm / (norm + 1e-6), 1.0))
        self.optimizers[replicate](self.rate(self.done))
        self.done += 1
