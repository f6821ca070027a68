"""The start of `hpo run`: study file and options, checked before anything else is loaded."""

from hpo.errors import InputError
from hpo.options import Options, flag
from hpo.output import check_language, check_writable, say
from hpo.study import file as study_file
from hpo.text import count

OF_GRIDS = ("seeds", "first_seed", "until_resolved", "changed_claims")
OF_SEARCHES = ("trials", "more", "sampler", "sampler_seed", "pruner", "repeats", "like")


def run(options: Options, command: str | None = None) -> tuple[str, bool]:
    """Runs or resumes a study, then writes its report. Returns the study's name in the storage, and
    whether there is a result, a report and, of a search, the saved winner.

    command: what the report shows as the command; None: what was typed. Raises InputError, and
    KeyboardInterrupt if the run was stopped.
    """
    file = with_options(study_file.load(options.study), options)
    name = study_file.check_name(file.name if options.name is None else options.name)
    if isinstance(file, study_file.SearchStudy) and (options.repeats or 1) > 1:
        return name, _repeat(options, command, file, name)
    check_writable(options.out, name)
    check_language(options.lang)
    if options.pool == "local":
        from hpo.workers.server import preload

        preload()  # torch loads in the workers' server while this process imports the rest
    from hpo import session

    return session.run(options, command, file, name)


def delete(name: str, options: Options) -> None:
    """Deletes a stored study with its finalists, pictures and saved winner, after a question."""
    from hpo import session

    session.delete(name, options)


def _repeat(options: Options, command: str | None, file: study_file.SearchStudy, name: str) -> bool:
    """Runs the search with several sampler seeds, each as another study; the first one last, so
    that its report shows the others. Returns whether all are complete."""
    assert options.repeats
    done = True
    for number in reversed(range(options.repeats)):
        changed = {
            "repeats": None,
            "name": name if number == 0 else f"{name}.repeat-{number + 1}",
            "sampler_seed": file.sampler_seed + number,
        }
        _, complete = run(options.model_copy(update=changed), command)
        done = done and complete
    return done


def with_options(file: study_file.StudyFile, options: Options) -> study_file.StudyFile:
    """Returns the study as the options change it; InputError for an option of the other kind."""
    search = isinstance(file, study_file.SearchStudy)
    kind, others = ("search", OF_GRIDS) if search else ("grid", OF_SEARCHES)
    for name in others:
        value = getattr(options, name)
        if value is not None and value is not False:  # 0 is given
            text = f"study {file.name!r} is a {kind}, which has no such option"
            raise InputError(f"{flag(name)}: {text}")
    file = file if options.precision is None else file.in_precision(options.precision)
    if not isinstance(file, study_file.SearchStudy):
        if options.until_resolved:
            _check_rounds(options, file)
        first = file.first if options.first_seed is None else options.first_seed
        if first % study_file.BLOCK and any(cell.crossed for cell in file.cells):
            raise InputError(
                f"study {file.name!r}: seeds.first or --first-seed: must be a multiple of "
                f"{study_file.BLOCK} with crossed cells, got {first}"
            )
        if options.first_seed is None:
            return file
        raw = {**file.raw, "seeds": {**dict(file.rounds), "first": first}}
        return file.model_copy(update={"first": first, "raw": raw})
    if options.trials is not None and options.more is not None:
        raise InputError("--more: counts from what is stored, and --trials all trials; give one")
    given = {name: getattr(options, name) for name in ("sampler", "sampler_seed", "pruner")}
    changes = {name: value for name, value in given.items() if value is not None}
    if options.trials is not None:
        changes["n_trials"] = options.trials
    if options.trials is not None or options.more is not None:
        changes["stop_after"] = None
    if {options.trials, options.more, options.timeout} != {None}:
        changes["timeout"] = None  # these options replace the file's time limit
    return file.model_copy(update=changes)


def _check_rounds(options: Options, file: study_file.GridStudy) -> None:
    """Says how the study goes on until its claims are resolved; InputError if it cannot."""
    if options.seeds:
        raise InputError("--until-resolved: chooses the seeds, so leave out --seeds")
    if not file.claims:
        raise InputError(f"--until-resolved: study {file.name!r} has no [[claims]] to resolve")
    more = f"{file.rounds.step} more a round for the networks of open claims"
    say(f"--until-resolved: {count(file.seeds, 'seed')}, then {more}, up to {file.rounds.most}")
