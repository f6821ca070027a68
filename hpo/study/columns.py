"""The names of what is stored of a trial: its attributes, and the columns of trials.csv."""

from typing import Any, TypedDict

METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")  # of an epoch


class TrialAttributes(TypedDict, total=False):
    """The user attributes of a trial.

    seeds: how many seeds its value is the mean of. first: the entry of [[search.first]] that it
    comes from. over_limit: 1 if its time limit ended it. run_seconds: how long the study had run
    when it ended, by a clock that cannot be set. For the others see storage.trial and runs.loop.
    """

    cell: str
    seed: int
    seeds: int
    stack: int
    first: str
    parameters: int | None
    fail_reason: str
    curve: dict[str, list[float | None]]
    diagnostics: dict[str, list[list[float | None]]]
    train_seconds: float
    run_seconds: float
    train_valid_gap: float
    diverged: int
    over_limit: int
    valid_by_seed: list[float]
    test_loss: float | None
    test_accuracy: float
    test_balanced_accuracy: float
    test_recall: list[float | None]
    mistakes: dict[str, Any]


TRIAL_COLUMNS = (
    "number", "state", "cell", "seed", "depth", "width", "activation", "optimizer", "lr",
    "batch_size", "epochs", *METRICS, "test_loss", "test_accuracy", "train_seconds", "diverged",
    "momentum", "nesterov", "weight_decay", "schedule", "parameters", "stack", "started",
    "ended", "fail_reason",
)  # fmt: skip
SOME_COLUMNS = ("test_balanced_accuracy", "over_limit", "run_seconds")  # of studies that have them
PARAMS = "params"  # the names of the hyperparameters that a row of trials has a value of
# Hyperparameters of one's own network are columns beside these, so they cannot be called so.
RESERVED = {*TRIAL_COLUMNS, *SOME_COLUMNS, *TrialAttributes.__annotations__, PARAMS}
