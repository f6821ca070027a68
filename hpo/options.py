"""The options of a run, declared once: for the command, for `hpo.run` and for the session."""

import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import typer
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
)

from hpo.errors import InputError
from hpo.language import ENGLISH, LANGUAGES
from hpo.study import fields
from hpo.study.fields import Flag, explained, fault, one_of
from hpo.study.names import DATASETS, FORMS, PRUNERS, SAMPLERS, Precision
from hpo.study.source import fault_in
from hpo.text import meant, quoted

STORAGE = "sqlite:///hpo.db"
OUT = Path("reports")
DEVICES = ("auto", "cpu", "cuda", "mps")
POOLS = ("local", "ray")
FILE = "the study file's"  # a default
CORES = "the cores this process may use; with --pool ray, what the cluster has room for"


def _text(value: Any) -> str:
    """Takes text or a path. pydantic's own type refuses names of files that are not UTF-8."""
    if not isinstance(value, (str, os.PathLike)):
        raise fault(f"must be text, got {quoted(value)}")
    return os.fspath(value)


def _texts(value: Any) -> tuple[str, ...]:
    listed = isinstance(value, (list, tuple))
    return tuple(_text(item) for item in (value if listed else [value]))


def _data(name: str) -> str:
    if wrong := fault_in(name):
        raise fault(wrong)
    return name


def _device(value: Any) -> str:
    """Takes a device's name, or cuda with numbers of GPUs."""
    kind, _, numbers = _text(value).partition(":")
    listed = numbers.split(",")
    some = kind == "cuda" and all(re.fullmatch("[0-9]{1,3}", number) for number in listed)
    if value not in DEVICES and not (some and len(set(map(int, listed))) == len(listed)):
        names, near = ", ".join(DEVICES), meant(str(value), DEVICES)
        raise fault(f"must be one of {names}, or cuda:0,1 for some GPUs, got {quoted(value)}{near}")
    return str(value)


Text = Annotated[str, PlainValidator(_text)]
Texts = Annotated[tuple[str, ...], PlainValidator(_texts)]
Folder = Annotated[Path, PlainValidator(lambda value: Path(_text(value)))]
Data = Annotated[Text, AfterValidator(_data)]
_plain = BeforeValidator(lambda value: value.item() if hasattr(value, "item") else value)  # NumPy's
Count = Annotated[fields.Count, _plain]
Seed = Annotated[fields.Seed, _plain]
Amount = Annotated[float, Field(ge=0), explained("must be a number of at least 0"), _plain]
Limit = Annotated[float, Field(ge=1), explained("must be a number of at least 1"), _plain]
Sampler = Annotated[str, *one_of(SAMPLERS)]
Pruner = Annotated[str, *one_of(PRUNERS)]
Precise = Annotated[Precision, *one_of(get_args(Precision))]
Pool = Annotated[str, *one_of(POOLS)]
Lang = Annotated[str, *one_of(LANGUAGES)]
Device = Annotated[str, PlainValidator(_device)]


def _shown(
    text: str, default: str = "", *, value: Any = None, names: Collection[str] = (), **more: Any
) -> Any:
    """Declares an option and how `--help` shows it.

    text: what it does; the names that it may have follow. default: words in the place of the
    default, which is `value`. names: what it may be. more: arguments of typer.Option.
    """
    if names:
        text = f"{text}{', '.join(names)}."
        more["autocompletion"] = lambda: list(names)
    if default:
        more["show_default"] = default
    return Field(value, description=text, json_schema_extra=more)


class Options(BaseModel):
    """The options of `hpo run`, see `hpo run --help`; None: the study file's or the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: Text
    seeds: Count | None = _shown("Grid: train each cell with N seeds.", FILE, metavar="N")
    first_seed: Seed | None = _shown("Grid: seeds K, K+1, … .", FILE, metavar="K")
    until_resolved: Flag = _shown(
        "Grid: more seeds, round by round, for the networks of claims that are still open.",
        value=False,
    )
    changed_claims: Flag = _shown(
        "Grid: accept claims that changed since the first trial; the report names the change.",
        value=False,
    )
    trials: Count | None = _shown(
        "Search: go on until the study holds N finished trials in total.", FILE, metavar="N"
    )
    more: Count | None = _shown("Search: N finished trials more than the study holds.", metavar="N")
    timeout: Amount | None = _shown(
        "Start no trial after this time, stop those that run, go on to the report.",
        metavar="SECONDS",
    )
    sampler: Sampler | None = _shown("Search: ", FILE, names=SAMPLERS)
    sampler_seed: Seed | None = _shown("Search: the sampler's seed.", FILE, metavar="INTEGER")
    repeats: Count | None = _shown(
        "Search: run the whole search N times with other sampler seeds; report the spread.",
        "1",
        metavar="N",
    )
    like: Text | None = _shown(
        "Search: begin with the trials of another stored search, or of its own past space.",
        metavar="STUDY",
    )
    pruner: Pruner | None = _shown("Search: ", FILE, names=PRUNERS)
    precision: Precise | None = _shown(
        "Of large products in training, where the processor gains by it (AMX): ",
        FILE,
        names=get_args(Precision),
    )
    workers: Count | None = _shown(
        "Trainings at once; on this machine, processes with one torch thread each.",
        CORES,
        metavar="INTEGER",
    )
    pool: Pool = _shown(
        "Where workers run: this machine, or a Ray cluster. ", value="local", names=POOLS
    )
    ray_address: Text | None = _shown(
        "Ray: the head node, host:port, or auto for the cluster of this machine.",
        "a cluster of its own on this machine",
        envvar="RAY_ADDRESS",
    )
    cpus_per_trial: Amount | None = _shown(
        "Ray: CPUs, and torch threads, of each training.", "1", metavar="FLOAT"
    )
    gpus_per_trial: Amount | None = _shown(
        "Ray: GPUs of each training; 0.25 shares one.", "0", metavar="FLOAT"
    )
    nodes: Count | None = _shown(
        "Ray: nodes that will come; the run waits for the first, and shows which are missing.",
        "those that are there",
        metavar="N",
    )
    epoch_limit: Limit = _shown(
        "Start a training again that ends no epoch for so long, twice at most.",
        value=600.0,
        metavar="SECONDS",
    )
    dataset: Data | None = _shown(
        f"{', '.join(DATASETS)}, or {FORMS}.", FILE, autocompletion=lambda: list(DATASETS)
    )
    data_dir: Folder | None = _shown(
        "Where datasets are or go; may be read-only if the files are there.",
        "a per-user cache folder",
        envvar="HPO_DATA_DIR",
    )
    storage: Text = _shown("Any Optuna storage URL.", value=STORAGE, envvar="HPO_STORAGE")
    out: Folder = _shown("Reports go to OUT/STUDY/.", value=OUT)
    lang: Lang = _shown(
        "The report's language: ", value=ENGLISH, envvar="HPO_LANG", names=LANGUAGES
    )
    name: Text | None = _shown("The study's name in the storage and in --out.", "the file's name")
    device: Device = _shown(
        "cuda uses all GPUs of the machine, cuda:1 or cuda:0,1 some; ", value="auto", names=DEVICES
    )
    dashboard: Flag = _shown("Serve the dashboard while the run lasts.", value=False)
    allow_host: Texts = _shown(
        "Dashboard: a name, beside addresses, under which browsers may ask.",
        value=(),
        metavar="NAME",
    )
    artifacts: Folder | None = _shown(
        "Where the trials' pictures are that the dashboard shows.",
        "hpo.artifacts, beside the storage's file",
        envvar="HPO_ARTIFACTS",
    )
    fresh: Flag = _shown("First delete the stored study (asks).", value=False)
    yes: Flag = _shown("Do not ask before deleting.", value=False)
    quiet: Flag = _shown("No progress display, only the last lines.", value=False)

    @classmethod
    def of(cls, given: Mapping[str, Any], *, typed: bool = False) -> Self:
        """Returns the options with these values. typed: as text, in a terminal. Raises InputError,
        a line for each fault."""
        if unknown := sorted(set(given) - set(cls.model_fields)):
            known, near = ", ".join(sorted(cls.model_fields)), meant(unknown[0], cls.model_fields)
            raise InputError(f"options: unknown {', '.join(unknown)}; known: {known}{near}")
        try:
            there = {name: value for name, value in given.items() if value is not None}
            return cls.model_validate(there, strict=not typed)
        except ValidationError as error:
            faults = error.errors(include_url=False)
            lines = [f"{flag(str(each['loc'][0]))}: {each['msg']}" for each in faults]
            raise InputError("\n".join(lines)) from None


def flag(name: str) -> str:
    """Returns an option as it is typed: --sampler-seed."""
    return f"--{name.replace('_', '-')}"


def from_environment() -> dict[str, str]:
    """Returns the options that environment variables give."""
    variables = {name: _terminal(name).get("envvar", "") for name in Options.model_fields}
    return {name: os.environ[v] for name, v in variables.items() if os.environ.get(v)}


# --- in the terminal ---------------------------------------------------------------------------


def _terminal(name: str) -> Mapping[str, Any]:
    """Returns the arguments of typer.Option that an option's declaration gives."""
    extra: Any = Options.model_fields[name].json_schema_extra
    return extra or {}


def checked(name: str) -> Callable[[typer.CallbackParam, Any], Any]:
    """Returns the callback of a parameter that takes an option's value: raises InputError for a
    wrong one."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        typed = param.opts[0] if param.opts[0].startswith("-") else param.opts[0].upper()
        try:
            given = {"study": "", name: value}
            return value if value is None else getattr(Options.of(given, typed=True), name)
        except InputError as error:
            raise InputError(str(error).replace(flag(name), typed, 1)) from None

    return check


def option(name: str) -> Any:
    """Returns the parameter of a command for an option, as Annotated takes it."""
    text = Options.model_fields[name].description
    return typer.Option(flag(name), help=text, callback=checked(name), **_terminal(name))


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command a parameter for each option, in the place of its last one, **options. All
    values but flags come as text, which the model reads."""
    first, _ = inspect.signature(command).parameters.values()
    parameters = [first]
    for name, field in list(Options.model_fields.items())[1:]:
        default = field.default
        kind: Any = {bool: bool, tuple: list[str]}.get(type(default), str)
        kind = Path if "Path" in str(field.annotation) else kind  # the shell completes paths
        hint: Any = Annotated[kind if default is not None else kind | None, option(name)]
        parameters.append(first.replace(name=name, annotation=hint, default=default))
    signature = inspect.Signature(parameters)
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return command
