"""The user's own network: built by a factory, trained by autograd with hpo's optimizers."""

import pkgutil
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hpo.data.schema import input_shape
from hpo.errors import InputError
from hpo.study.config import Config, Seeds
from hpo.study.names import OPTIMIZERS
from hpo.training.noise import OFFSET
from hpo.training.optimizers import Step


def build(config: Config, folder: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Calls the factory with shape, classes and the configuration's own hyperparameters.

    folder: where the factory's module lies, if it is not installed. Raises InputError if it does
    not import, or returns no module.
    """
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        factory = pkgutil.resolve_name(config.model)
        made = factory(shape=shape, classes=classes, **config.own)
    except Exception as error:  # of the user's code
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"model {config.model}: {said}") from error
    if not isinstance(made, nn.Module):
        kind = type(made).__name__
        raise InputError(f"model {config.model}: returns a {kind}; return a torch.nn.Module")
    return made


def try_model(
    config: Config, folder: str, shape: Sequence[int], features: int, classes: int
) -> str:
    """Returns what is wrong with the factory or its module's output; empty if nothing is."""
    inputs = input_shape(shape, features)
    try:
        network = build(config, folder, inputs, classes).eval()
        with torch.inference_mode():
            answer = network(torch.zeros(2, *inputs))
    except InputError as error:
        return str(error)
    except Exception as error:  # of the user's code
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return f"model {config.model}: cannot take inputs of shape (2, {_listed(inputs)}): {said}"
    if not isinstance(answer, Tensor) or answer.shape != (2, classes):
        kind = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        return (
            f"model {config.model}: gives {kind} for 2 inputs of shape ({_listed(inputs)}); give "
            f"logits of shape (2, {classes})"
        )
    return ""


def _listed(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


class OwnNetwork:
    """R modules of one configuration, one per seed. The interface is that of network.Network.

    The parameters of each are views of one flat vector, so that hpo's optimizers step on it.
    """

    def __init__(
        self,
        config: Config,
        folder: str,
        shape: Sequence[int],
        features: int,
        classes: int,
        seeds: Sequence[Seeds],
        device: torch.device,
    ) -> None:
        self.config, self.classes = config, classes
        self.shape = input_shape(shape, features)
        self.rows = tuple(shape) if len(self.shape) == 3 else self.shape
        self.replicates = len(seeds)
        self.modules: list[nn.Module] = []
        with torch.random.fork_rng():
            for seed in seeds:
                torch.manual_seed(seed.weights)
                self.modules.append(build(config, folder, self.shape, classes).to(device))

    @property
    def parameters(self) -> int:
        """Returns the number of parameters of one replicate."""
        return sum(parameter.numel() for parameter in self.modules[0].parameters())

    def state_dict(self, replicate: int = 0) -> dict[str, Tensor]:
        """Returns one replicate's parameters and buffers."""
        state = self.modules[replicate].state_dict()
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def logits(self, images: Tensor, rows: Tensor, classes: int) -> Tensor:
        """Returns the logits of rows, (steps, R, B), of images, (steps, R, classes, B)."""
        steps = []
        with torch.inference_mode():
            for module in self.modules:
                module.eval()
            for step in rows:
                answers = [self(r, images[of]) for r, of in enumerate(step)]
                steps.append(torch.stack([answer.T for answer in answers]))
        return torch.stack(steps)

    def __call__(self, replicate: int, images: Tensor) -> Tensor:
        inputs = images.unflatten(1, self.rows)
        if len(self.rows) == 3:  # colours lie last in a row, and first in a module's input
            inputs = inputs.movedim(3, 1).contiguous()
        answer: Tensor = self.modules[replicate](inputs.reshape(-1, *self.shape))
        return answer


class _Flat:
    """A module's parameters and gradients as two flat vectors."""

    def __init__(self, module: nn.Module) -> None:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        count = sum(parameter.numel() for parameter in trained)
        device = trained[0].device if trained else torch.device("cpu")
        self.weights, self.gradient = (torch.zeros(count, device=device) for _ in range(2))
        start = 0
        for parameter in trained:
            part = slice(start, start + parameter.numel())
            self.weights[part] = parameter.detach().flatten()
            parameter.data = self.weights[part].view_as(parameter)
            parameter.grad = self.gradient[part].view_as(parameter)
            start = part.stop


class OwnTrainer:
    """The steps of an optimizer over the user's own modules, one replicate after another."""

    def __init__(
        self,
        network: OwnNetwork,
        seeds: Sequence[Seeds],
        rate: Callable[[int], float],
        checked: Callable[[int], None],
    ) -> None:
        """rate: the learning rate of a step, by its number. checked: called at every step with its
        number in the epoch; raises to end the epoch."""
        self.network, self.config = network, network.config
        self.rate, self.checked = rate, checked
        self.flats = [_Flat(module) for module in network.modules]
        make = OPTIMIZERS[self.config.optimizer].load()
        self.optimizers: list[Step] = [
            make(flat.weights, flat.gradient, self.config) for flat in self.flats
        ]
        self.states = [self._state(seed.order) for seed in seeds]
        self.done = 0

    @staticmethod
    def _state(seed: int) -> Tensor:
        """Returns the state of torch's generator from which a replicate draws its dropout."""
        with torch.random.fork_rng():
            torch.manual_seed(OFFSET + seed)
            return torch.random.get_rng_state()

    def epoch(
        self, images: Tensor, labels: Tensor, order: Tensor
    ) -> tuple[list[float], list[float]]:
        """Trains on the rows of order, (R, n), in batches. Returns each replicate's loss and
        accuracy."""
        losses, accuracies, before = [], [], self.done
        for replicate, rows in enumerate(order):
            self.done = before
            with torch.random.fork_rng():
                torch.random.set_rng_state(self.states[replicate])
                loss, right = self._epoch(replicate, images, labels, rows)
                self.states[replicate] = torch.random.get_rng_state()
            losses.append(loss / len(rows))
            accuracies.append(right / len(rows))
        return losses, accuracies

    def _epoch(
        self, replicate: int, images: Tensor, labels: Tensor, rows: Tensor
    ) -> tuple[float, int]:
        """Returns the summed cross entropy, without label smoothing, and how many are right."""
        config, loss, right = self.config, 0.0, 0
        self.network.modules[replicate].train()
        for step, batch in enumerate(rows.split(config.batch_size)):
            self.checked(step)
            inputs, truth = images[batch], labels[batch]
            if config.input_noise:
                inputs = inputs + config.input_noise * torch.randn_like(inputs)
            logits = self.network(replicate, inputs)
            self._step(replicate, logits, truth)
            with torch.no_grad():
                loss += float(cross_entropy(logits, truth, reduction="sum"))
                right += int((logits.argmax(1) == truth).sum())
        return loss, right

    def _step(self, replicate: int, logits: Tensor, truth: Tensor) -> None:
        config, flat = self.config, self.flats[replicate]
        flat.gradient.zero_()
        cross_entropy(logits, truth, label_smoothing=config.label_smoothing).backward()
        if config.clip_norm:
            norm = torch.linalg.vector_norm(flat.gradient)
            flat.gradient.mul_(torch.clamp_max(config.clip_norm / (norm + 1e-6), 1.0))
        self.optimizers[replicate](self.rate(self.done))
        self.done += 1
