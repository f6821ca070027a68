"""`hpo dashboard` and `hpo run --dashboard`: what they serve, refuse and survive."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
import pytest
from test_report import store
from test_search_cli import await_trials, ended_in
from tiny import SEARCH

from hpo.errors import InputError
from hpo.results.load import load_study
from hpo.runs.progress import Progress
from hpo.storage.open import open_storage
from hpo.watch import note
from hpo.watch.dashboard import Server, beside, listen
from hpo.workers import server

SERVING = re.compile(r"optuna-dashboard on (http://\S+)")


def get(url: str | urllib.request.Request, timeout: float = 20) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def is_served(url: str) -> bool:
    try:
        get(url)
    except OSError:
        return False
    return True


def address(process: subprocess.Popen[str]) -> str:
    """What a command prints that serves; its lines before that are skipped."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := SERVING.search(line):
            return found[1].rstrip("/")
    raise AssertionError(process.communicate())


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Stopped (Ctrl-C may be ignored in a shell's background job): its exit code, and what it said
    on standard error."""
    process.terminate()
    _, err = process.communicate(timeout=20)
    return process.returncode, err


def test_it_serves_studies_and_artifacts_and_says_where_and_which_are_gone(hpo_process, tmp_path):
    store(tmp_path)
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = optuna.load_study(study_name="grid-report", storage=storage)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    kept, lost = (
        optuna.artifacts.upload_artifact(
            artifact_store=optuna.artifacts.FileSystemArtifactStore(folder),
            file_path=str(tmp_path / "x.png"),
            study_or_trial=study,
        )
        for _ in range(2)
    )
    (folder / lost).unlink()
    process = hpo_process("dashboard", "--port", "0", "--artifacts", str(folder))
    url = address(process)
    assert url.startswith("http://127.0.0.1:")
    assert get(url)[0] == 200
    status, body = get(f"{url}/api/studies")
    assert status == 200
    assert [s["study_name"] for s in json.loads(body)["study_summaries"]] == ["grid-report"]
    assert json.loads(get(f"{url}/api/meta")[1])["artifact_is_available"]
    assert get(f"{url}/artifacts/{study._study_id}/{kept}") == (200, b"\x89PNG")
    status, body = get(f"{url}/artifacts/{study._study_id}/{lost}")
    assert (status, body) == (404, b"This artifact is gone.")
    assert ended(process) == (130, "")


def test_a_port_in_use_is_a_line(forked_hpo, tmp_path):
    store(tmp_path)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        answer = forked_hpo("dashboard", "--port", port)
    assert answer.code == 2
    assert answer.err == (
        f"hpo: --port {port}: cannot listen on it (Address already in use); give another, or "
        "--port 0 for a free one\n"
    )


def test_an_address_of_another_machine_is_a_line(tmp_path):
    store(tmp_path)
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}", create=False)
    with pytest.raises(InputError, match=r"--host 192\.0\.2\.1: cannot listen on it"):
        listen(storage, tmp_path, "192.0.2.1", 0, print)


def test_any_other_address_than_this_machines_own_warns(forked_hpo, tmp_path):
    store(tmp_path)
    answer = forked_hpo("dashboard", "--port", "0", "--host", "0.0.0.0")
    warning, served = answer.out.splitlines()
    assert "WARNING: the dashboard has no login" in warning
    assert SERVING.search(served)


def test_a_storage_without_studies_is_a_line_and_leaves_no_file(forked_hpo, tmp_path):
    answer = forked_hpo("dashboard")
    assert (answer.code, list(tmp_path.iterdir())) == (2, [])
    open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    answer = forked_hpo("dashboard")
    assert answer.code == 2
    assert answer.err == (
        "hpo: storage sqlite:///hpo.db: holds no studies yet; `hpo run` makes them\n"
    )


def test_a_storage_that_goes_away_is_a_line_and_no_empty_file(tmp_path, capfd):
    store(tmp_path)
    said: list[str] = []
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}", create=False)
    with listen(storage, tmp_path, "127.0.0.1", 0, said.append) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert get(f"{server.address}api/studies")[0] == 200
        for file in tmp_path.glob("hpo.db*"):
            file.unlink()
        with ThreadPoolExecutor(30) as clients:  # more than the connections that are open already
            answers = list(clients.map(get, [f"{server.address}api/studies"] * 60))
        server.shutdown()
    assert {status for status, _ in answers} <= {200, 500, 503}
    assert not list(tmp_path.glob("hpo.db*"))
    assert len(said) <= 1
    assert all(line.startswith("dashboard: ") for line in said)
    assert not capfd.readouterr().err


# --- who is answered ---------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path) -> Iterator[Callable[..., tuple[int, int, str]]]:
    """Serves a study at an address and sends a request; returns the status of the answer, how many
    studies there are then, and the answer's text. PORT in a header is the server's."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="a")
    servers: dict[tuple[str, tuple[str, ...]], Server] = {}

    def ask(*headers: str, at: str = "127.0.0.1", allow: tuple[str, ...] = (), do: str = "DELETE"):
        if (at, allow) not in servers:
            served = servers[at, allow] = listen(storage, tmp_path, at, 0, print, allow)
            threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        port = servers[at, allow].server_address[1]
        path = "/api/studies/0" if do == "DELETE" else "/api/studies"
        lines = "".join(f"{line}\r\n" for line in headers).replace("PORT", str(port))
        with socket.create_connection((at.replace("0.0.0.0", "127.0.0.1"), port)) as client:
            client.sendall(f"{do} {path} HTTP/1.0\r\n{lines}\r\n".encode())
            answer = client.makefile("rb").read().decode()
        count = len(storage.get_all_studies())
        if not count:
            storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "b")
            storage.delete_study = lambda study: None  # type: ignore[method-assign]
        return int(answer.split()[1]), count, answer.partition("\r\n\r\n")[2]

    yield ask
    for served in servers.values():
        served.shutdown()
        served.server_close()


def test_a_site_whose_name_leads_to_this_machine_deletes_no_study(asked):
    """DNS rebinding: a page asks for its own name, which its owner made this machine's."""
    status, studies, text = asked("Host: evil.example:PORT")
    assert (status, studies) == (403, 1)
    assert re.fullmatch(
        r"'evil\.example:\d+' is no known name of this dashboard; open http://127\.0\.0\.1:\d+/, "
        r"or start it with --allow-host NAME\n",
        text,
    )


@pytest.mark.parametrize(
    "host",
    ["", "Host:", "Host: 192.168.1.5", "Host: [2001:db8::1]:PORT", "Host: localhost.evil.example",
     "Host: localhost@evil.example", "Host: evil.example@localhost", "Host: localhost:x",
     "Host: 127.0.0.1.evil.example", "Host: 127.1", "Host: 2130706433", "Host: 0x7f.0.0.1",
     "Host: localhost..", "Host: localhost evil.example", "Host: localhost/x", "Host: [::1",
     "Host: ::1", "Host: [127.0.0.1]", "Host: localhost\r\nHost: evil.example", "Host: \xe9\0",
     "Host: evil.example\r\nX-Forwarded-Host: localhost", "Host: [::1%25lo]"],
)  # fmt: skip
def test_at_an_address_of_this_machine_alone_only_its_own_names_are_answered(asked, host):
    assert asked(host, do="GET")[0] == 403


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:PORT", "LocalHost.:PORT", "127.0.0.1:PORT", "127.8.0.1", "[::1]:PORT"],
)
def test_its_own_names_are_answered(asked, host):
    for at in ("127.0.0.1", "0.0.0.0"):
        assert asked(f"Host: {host}", do="GET", at=at)[0] == 200


def test_at_an_address_for_others_addresses_and_the_names_that_are_allowed_are_answered(asked):
    def status(host: str) -> int:
        return asked(f"Host: {host}", at="0.0.0.0", allow=("Box.example.", "two"), do="GET")[0]

    for host in ("10.0.0.7:PORT", "[2001:DB8::1]:PORT", "box.example:PORT", "BOX.example", "two"):
        assert status(host) == 200, host
    for host in ("evil.example", "a.box.example", "box.example.evil", "300.0.0.1", "[:::]"):
        assert status(host) == 403, host
    for given in ("http://box", "box:80", "a b", "", "user@box"):
        with pytest.raises(InputError, match=r"--allow-host '.*': is no name of a machine"):
            asked("Host: two", allow=(given,))


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "http://127.0.0.1:PORT",
               "http://localhost:PORT.evil.example", "http://localhost:PORT@evil.example", "http://9.9.9.9"],
)  # fmt: skip
def test_a_page_of_another_site_changes_nothing(asked, origin):
    for at in ("127.0.0.1", "0.0.0.0"):
        answer = asked("Host: localhost:PORT", f"Origin: {origin}", at=at)
        assert answer[:2] == (403, 1)
        assert "another site" in answer[2]
    assert asked("Host: localhost:PORT", f"Origin: {origin}", do="GET")[0] == 200  # as a link


@pytest.mark.parametrize("origin", ["http://localhost:PORT", "https://box.example", ""])
def test_its_own_page_and_a_proxy_of_an_allowed_name_may_change_something(asked, origin):
    headers = ("Host: localhost:PORT", *[f"Origin: {origin}"][: bool(origin)])
    assert asked(*headers, allow=("box.example",))[:2] == (204, 0)


def test_the_command_takes_names_that_are_allowed(hpo_process, tmp_path):
    store(tmp_path)
    process = hpo_process("dashboard", "--port", "0", "--allow-host", "box", "--allow-host", "b.c")
    url = address(process)
    for host, status in (("box", 200), ("b.c:1", 200), ("c", 403)):
        assert (
            get(urllib.request.Request(f"{url}/api/studies", headers={"Host": host}))[0] == status
        )
    assert ended(process) == (130, "")


# --- beside a run ------------------------------------------------------------------------------


class Poller(threading.Thread):
    """A client that asks for a study every fifth of a second, until told to stop."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.stop, self.answers = url, threading.Event(), []

    def run(self) -> None:
        while not self.stop.wait(0.2):
            for path in ("/api/studies", "/api/studies/1?after=0"):
                try:
                    self.answers.append(get(self.url + path)[0])
                except OSError as error:
                    self.answers.append(str(error))


def test_a_broken_answer_is_a_line_and_a_lost_client_none(capfd):
    said: list[str] = []
    server = Server("127.0.0.1", 0, said.append)

    def broken(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"half"
        raise OSError("the disk went away")

    server.set_app(broken)
    with server, socket.socket() as client:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert get(server.address) == (200, b"half")
        client.connect(server.server_address)
        linger = struct.pack("ii", 1, 0)  # closing resets the connection
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.send(b"GET / HTTP/1.1")
        client.close()
        get(server.address)  # answered after it
        server.shutdown()
    assert said == ["dashboard: OSError: the disk went away"], "a repeated line is said once"
    assert not capfd.readouterr().err


@pytest.mark.slow
def test_four_clients_poll_while_a_study_writes(hpo_process, tmp_path):
    """And a timeout goes on to finalists, winner and report."""
    (tmp_path / "tiny.toml").write_text(SEARCH)
    process = hpo_process("run", "tiny.toml", "--trials", "100000", "--timeout", "8", "--dashboard")
    url = address(process)
    await_trials(tmp_path)
    pollers = [Poller(url) for _ in range(4)]
    [poller.start() for poller in pollers]
    enough, deadline = ended_in(tmp_path) + 4, time.monotonic() + 30
    while ended_in(tmp_path) < enough or any(len(poller.answers) < 4 for poller in pollers):
        assert time.monotonic() < deadline, [poller.answers for poller in pollers]
        time.sleep(0.05)
    [poller.stop.set() for poller in pollers]
    [poller.join() for poller in pollers]
    out, err = process.communicate(timeout=60)
    # Where trials end faster than their pictures are drawn, a line says so.
    assert process.returncode == 0
    assert re.fullmatch(r"(NOTE: trials end too fast to draw all of them.*\n)?", err)
    assert "locked" not in out
    assert {status for poller in pollers for status in poller.answers} == {200}
    assert not is_served(url)  # it ends with the run
    assert len(pd.read_csv(tmp_path / "reports/tiny/finalists.csv")) == 4
    assert (tmp_path / "reports/tiny/best/model.safetensors").is_file()


@pytest.mark.slow
def test_a_second_one_takes_a_free_port_and_both_end_with_their_runs(tmp_path):
    store(tmp_path)
    server.preload()
    url, folder = f"sqlite:///{tmp_path / 'hpo.db'}", tmp_path / "hpo.artifacts"
    with beside(url, folder) as first, beside(url, folder) as second:
        assert first != second
        assert get(f"{first}api/studies") == get(f"{second}api/studies")
    assert not is_served(first)
    assert not is_served(second)


@pytest.mark.slow
def test_a_killed_run_leaves_no_dashboard(hpo_process, tmp_path):
    (tmp_path / "tiny.toml").write_text(SEARCH)
    process = hpo_process("run", "tiny.toml", "--trials", "100000", "--dashboard")
    url = address(process)
    assert get(url)[0] == 200
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_served(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_served(url)


# --- the note ----------------------------------------------------------------------------------


def note_of(folder: Path, name: str) -> str:
    from optuna_dashboard import get_note

    storage = open_storage(f"sqlite:///{folder / 'hpo.db'}")
    return get_note(optuna.load_study(study_name=name, storage=storage))


def test_a_search_says_what_it_is_and_what_came_out(ended_search):
    text = note_of(ended_search.folder, "tiny")
    assert text.startswith("# Tiny \\<search> & more\n")
    assert "- **Budget**: 8 trials, chosen by TPE, with the median rule; then the best 2" in text
    assert "- **Command**: hpo run tiny.toml" in text
    assert "depth: [1, 2]" in text
    assert "The winner is" in text
    assert "| Rank | Trial |" in text
    report = ended_search.folder / "reports/tiny/index.html"
    assert str(report) in text.replace("\\", "")
    of_finalists = note_of(ended_search.folder, "tiny.finalists")
    assert "trainings: 3 cells, 2 seeds each" in of_finalists
    assert "trials:" not in of_finalists


def begin(storage) -> None:
    study = optuna.load_study(study_name="grid-report", storage=storage)
    note.Notes(storage, "hpo run grid-report").on_start(study, Progress(title="", total=1))


def end(storage, report: Path | None, command: str = "hpo run grid-report") -> None:
    note.Notes(storage, command).on_report(load_study(storage, "grid-report"), report)


def test_a_grid_says_its_cells_and_its_table(tmp_path):
    store(tmp_path)
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    begin(storage)
    begun = note_of(tmp_path, "grid-report")
    assert "24 trials: 8 cells, 3 seeds each" in begun
    assert "Report" not in begun
    end(storage, tmp_path / "index.html")
    assert "| Baseline MLP |" in note_of(tmp_path, "grid-report")


def test_a_note_repeats_no_deletion_and_names_no_report_that_is_not_there(tmp_path):
    store(tmp_path)
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    end(storage, None, "hpo run grid-report --fresh --yes --seeds 3")
    text = note_of(tmp_path, "grid-report")
    assert "- **Command**: hpo run grid-report --seeds 3\n" in text
    assert "**Report**" not in text
    assert "| Baseline MLP |" in text


def test_a_note_that_a_person_changed_is_left_alone(tmp_path):
    from optuna_dashboard import save_note

    store(tmp_path)
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    begin(storage)
    study = optuna.load_study(study_name="grid-report", storage=storage)
    save_note(study, "My own words.")
    end(storage, tmp_path / "index.html")
    assert note_of(tmp_path, "grid-report") == "My own words."


def trial_notes(storage, name: str) -> dict[int, str]:
    """{number: note} of the trials that have one, as the dashboard reads them."""
    library, study = note._library(), optuna.load_study(study_name=name, storage=storage)
    attributes = storage.get_study_system_attrs(study._study_id)
    read = partial(library.get_note_from_system_attrs, attributes)
    every = {trial.number: read(trial._trial_id)["body"] for trial in study.trials}
    return {number: body for number, body in every.items() if body}


def test_a_finished_trial_says_what_it_is_its_curve_and_why_it_ended(ended_search):
    storage = open_storage(f"sqlite:///{ended_search.folder / 'hpo.db'}")
    search, found = load_study(storage, "tiny"), trial_notes(storage, "tiny")
    assert {*found} == {*search.ended["number"]}
    for _, trial in search.ended.iterrows():
        text, number = found[trial["number"]], trial["number"]
        config = search.config(number)
        assert text.startswith(f"**Trial {number}**: {config.brief.replace('_', ' ')}")
        assert f"lr {config.lr:.3g}" in text
        curve = search.curves[search.curves["number"] == number]
        rows = re.findall(r"^\| (\d+) \| .* \| (\S+) \|$", text, re.M)
        accuracies = [f"{100 * value:.2f}" for value in curve["valid_accuracy"]]
        assert rows == [(str(n), each) for n, each in enumerate(accuracies, 1)]
        last, reached = f"epoch {len(curve)} of 3", f"validation accuracy {accuracies[-1]}%"
        ways = {"COMPLETE": f"Ended after {last}: {reached}."}
        ways["PRUNED"] = f"Pruned by the median rule after {last}: {reached}."
        said = f"Diverged in {last}: " if trial["diverged"] else ways[trial["state"]]
        assert f"\n\n{said}" in text
    finalists = trial_notes(storage, "tiny.finalists")
    assert len(finalists) == 6
    assert all(", seed " in text.splitlines()[0] for text in finalists.values())


@pytest.mark.parametrize("url", ["sqlite:///{}/hpo.db", "journal:///{}/hpo.log"])
def test_notes_of_trials_are_added_at_once_and_a_persons_stays(url, tmp_path, monkeypatch):
    store(tmp_path)
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    if url.startswith("journal"):
        copied = open_storage(url.format(tmp_path))
        optuna.copy_study(from_study_name="grid-report", from_storage=storage, to_storage=copied)
        storage = copied
    stored = load_study(storage, "grid-report")
    study = optuna.load_study(study_name="grid-report", storage=storage)
    trial, notes = stored.frozen[3], note.Notes(storage, "hpo run")
    library = note._library()
    library.save_note_with_version(storage, study._study_id, trial._trial_id, 1, "My words.")
    monkeypatch.setattr(note, "MOST_NOTED", 20)
    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "set_study_system_attr", None)  # a transaction for each
        notes._write_trials(study, stored)
        notes._write_trials(study, stored)
    found = trial_notes(open_storage(url.format(tmp_path)), "grid-report")
    best = sorted(stored.frozen, key=lambda each: -each.values[0])[:20]
    assert {*found} == {each.number for each in best} | {3}
    assert found[3] == "My words."


def test_notes_are_the_librarys_own_without_the_rest_of_it():
    program = (
        "import sys; from hpo.watch import note; library = note._library();"
        "assert library.__name__ == 'optuna_dashboard._note', library;"
        "assert not {'sklearn', 'optuna_dashboard', 'matplotlib'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
