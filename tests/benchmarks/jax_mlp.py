"""The report's network in JAX: an epoch is one compiled scan over the batches."""

import time
from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

BATCH = 64
Parameters = list[tuple[jax.Array, jax.Array]]


def parameters(sizes: tuple[int, ...], seed: int) -> Parameters:
    """Returns weights (in, out) and biases, uniform as torch.nn.Linear draws them."""
    rng = np.random.default_rng(seed)
    drawn = []
    for fan_in, fan_out in pairwise(sizes):
        bound = fan_in**-0.5
        weight = rng.uniform(-bound, bound, (fan_in, fan_out)).astype(np.float32)
        drawn.append((jnp.asarray(weight), jnp.zeros(fan_out)))
    return drawn


def logits(network: Parameters, images: jax.Array) -> jax.Array:
    for weight, bias in network[:-1]:
        images = jax.nn.sigmoid(images @ weight + bias)
    weight, bias = network[-1]
    return images @ weight + bias


def loss(
    network: Parameters, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the mean cross entropy; beside it, its sum and the number of right answers."""
    answers = logits(network, images)
    terms = -jnp.take_along_axis(jax.nn.log_softmax(answers), labels[:, None], 1)
    return terms.mean(), (terms.sum(), (answers.argmax(1) == labels).sum())


def epoch(
    network: Parameters, images: jax.Array, labels: jax.Array, order: jax.Array
) -> tuple[Parameters, jax.Array, jax.Array]:
    """Trains on the rows of order, (steps, BATCH); returns loss and right answers, summed."""

    def step(
        network: Parameters, rows: jax.Array
    ) -> tuple[Parameters, tuple[jax.Array, jax.Array]]:
        gradient = jax.grad(loss, has_aux=True)
        slopes, figures = gradient(network, images[rows], labels[rows])
        return jax.tree.map(lambda value, slope: value - 0.1 * slope, network, slopes), figures

    network, (losses, right) = jax.lax.scan(step, network, order)
    return network, losses.sum(), right.sum()


class Trainer:
    """R networks of one width; compiled at the first epoch. `validate` is compiled at its first
    call."""

    def __init__(
        self, width: int, images: np.ndarray, labels: np.ndarray, rows: int, stack: int = 1
    ) -> None:
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels.astype(np.int32))
        self.rows, self.stack = rows, stack
        sizes = (images.shape[1], width, width, 10)
        networks = [parameters(sizes, seed) for seed in range(stack)]
        self.rng = np.random.default_rng(0)
        # The networks' memory is used again: without it, XLA copies them.
        if stack == 1:
            self.network = networks[0]
            self.step: Callable[..., tuple[Parameters, jax.Array, jax.Array]] = jax.jit(
                epoch, donate_argnums=0
            )
        else:
            self.network = jax.tree.map(lambda *of: jnp.stack(of), *networks)
            mapped = jax.vmap(epoch, in_axes=(0, None, None, 0))
            self.step = jax.jit(mapped, donate_argnums=0)
        self.valid = jax.jit(lambda network, images, labels: loss(network, images, labels)[1])

    def _order(self) -> jax.Array:
        draws = [self.rng.permutation(self.rows).reshape(-1, BATCH) for _ in range(self.stack)]
        return jnp.asarray(draws[0] if self.stack == 1 else np.stack(draws))

    def epoch(self) -> float:
        """Trains an epoch; returns a network's share of its seconds."""
        began = time.perf_counter()
        self.network, losses, right = self.step(
            self.network, self.images, self.labels, self._order()
        )
        jax.block_until_ready((self.network, losses, right))
        return (time.perf_counter() - began) / self.stack

    def validate(self) -> None:
        images, labels = self.images[self.rows :], self.labels[self.rows :]
        jax.block_until_ready(self.valid(self.network, images, labels))
