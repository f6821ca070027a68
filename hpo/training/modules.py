"""The perceptron of a configuration as a module of torch.nn, for saved networks."""

from itertools import pairwise

from torch import Tensor, nn

from hpo.study.config import Config
from hpo.study.names import ACTIVATIONS, NORMS


class Residual(nn.Module):
    """Adds its input to the output of its layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.block(x)
        return out


def mlp(config: Config, features: int, classes: int) -> nn.Sequential:
    """Returns the network with torch's initial weights: per hidden layer Linear, norm, activation
    and dropout, then Linear."""
    activation = getattr(nn, ACTIVATIONS[config.activation].module)
    layers: list[nn.Module] = [nn.Dropout(config.input_dropout)] if config.input_dropout else []
    for index, (fan_in, fan_out) in enumerate(pairwise([features, *config.hidden])):
        block: list[nn.Module] = [nn.Linear(fan_in, fan_out)]
        if config.norm != "none":
            block.append(getattr(nn, NORMS[config.norm].module)(fan_out))
        block.append(activation())
        block += [nn.Dropout(config.dropout)] if config.dropout else []
        layers += [Residual(*block)] if config.residual and index else block
    return nn.Sequential(*layers, nn.Linear(config.hidden[-1], classes))
