"""cluster/slurm.sh with stand-ins of srun and scontrol: nodes are Ray's on 127.0.0.2 and so on."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from scenes import GRID, Scene, check_grid, wait_for

SCRIPT = Path(__file__).parents[1] / "cluster" / "slurm.sh"
BIN = Path(sys.executable).parent
HEAD, LATE, NEVER = "127.0.0.2", "127.0.0.3", "127.0.0.4"
SRUN = f"""#!/bin/bash
while [[ $1 == --* ]]; do
  [[ $1 != --nodelist=* ]] || node=${{1#*=}}
  shift
done
echo "$node $*" >> srun.calls
if [[ $node == {NEVER} ]]; then exec sleep 600; fi
[[ $1 == ray ]] || exec "$@"
if [[ $node == {LATE} ]]; then
  while [[ ! -e come ]]; do sleep 0.2; done
  set -- "$@" --node-ip-address="$node"
fi
exec "$@" --object-store-memory=104857600
"""
SCONTROL = """#!/bin/bash
echo "$*" >> scontrol.calls
case "$1 $2" in
  "show hostnames") tr , '\\n' <<< "$3" ;;
  "show job") cat state ;;
esac
"""
# Runs until SIGTERM, and then ends with the code that lies in a file.
HPO = """#!/bin/bash
echo "$*" >> hpo.calls
trap 'exit $(cat code)' TERM
while true; do sleep 0.1; done
"""
RAY = """#!/bin/bash
exec sleep 600
"""


class Job:
    """A job of the script in a folder, as Slurm would start it."""

    def __init__(self, folder: Path, **tools: str) -> None:
        self.folder, self.tools = folder, folder / "tools"
        self.tools.mkdir()
        for name, text in {"srun": SRUN, "scontrol": SCONTROL, **tools}.items():
            (self.tools / name).write_text(text)
            (self.tools / name).chmod(0o755)
        self.state("RUNNING")
        self.processes: list[subprocess.Popen[str]] = []

    def state(self, name: str) -> None:
        (self.folder / "state").write_text(f"JobId=7 JobName=hpo JobState={name} Restarts=0\n")

    def start(self, *arguments: str, nodes: str = HEAD, **env: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HPO_", "RAY_"))}
        slurm = {
            "PATH": f"{self.tools}:{BIN}:{os.environ['PATH']}",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": nodes,
            "SLURM_CPUS_PER_TASK": "1",
            "HPO_HEAD_IP": HEAD,
        }
        process = subprocess.Popen(
            ["bash", SCRIPT, *arguments],
            cwd=self.folder,
            env={**inherited, **slurm, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def calls(self, tool: str) -> list[str]:
        path = self.folder / f"{tool}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def left(self) -> list[str]:
        """The commands that still run in the sessions of its processes."""
        leaders = {str(process.pid) for process in self.processes}
        command = ["ps", "-eo", "sid,stat,args"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
        return [args for sid, stat, args in rows if sid in leaders and not stat.startswith("Z")]

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def job(folder: Path) -> Iterator[Job]:
    """With stand-ins of hpo and Ray, too."""
    made = Job(folder, hpo=HPO, ray=RAY)
    yield made
    made.end()


@pytest.fixture
def real(folder: Path) -> Iterator[Job]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: pip install -e '.[ray]'")
    made = Job(folder)
    yield made
    made.end()


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    found = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("number", "state", "code", "restarts", "requeued"),
    [
        (signal.SIGUSR1, "RUNNING", 130, 0, True),  # the job's time is over soon
        (signal.SIGTERM, "RUNNING", 130, 1, True),  # another job takes the nodes
        (signal.SIGTERM, "CANCELLED", 130, 0, False),  # scancel
        (signal.SIGUSR1, "RUNNING", 0, 0, False),  # the study ended just then
        (signal.SIGUSR1, "RUNNING", 2, 0, False),  # what the user gave is at fault
        (signal.SIGUSR1, "RUNNING", 130, 20, False),  # often enough
    ],
)
def test_a_stopped_job_goes_back_into_the_queue(job, number, state, code, restarts, requeued):
    job.state(state)
    (job.folder / "code").write_text(str(code))
    nodes = f"{HEAD},{LATE},{NEVER}"
    process = job.start("study", "--fresh", "--yes", nodes=nodes, SLURM_RESTART_COUNT=str(restarts))
    wait_for(lambda: job.calls("hpo"), 20)
    fresh = "" if restarts else "--fresh "
    (called,) = job.calls("hpo")
    assert called.startswith(f"run study {fresh}--yes --pool ray --ray-address {HEAD}:")
    assert called.endswith("--nodes 3")
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert (f"requeue {os.getpid()}" in job.calls("scontrol")) == requeued
    assert ("goes back into the queue" in said) == requeued
    assert ("after 20 restarts" in said) == (restarts == 20)
    assert [call.split()[0] for call in sorted(job.calls("srun"))] == [HEAD, LATE, NEVER]
    wait_for(lambda: not job.left(), 20)


@pytest.mark.parametrize("option", [("--more", "5"), ("--more=5",)])
def test_an_option_that_counts_anew_after_a_requeue_is_refused(job, option):
    process = job.start("study", *option)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert said == "hpo: --more: would count anew after each requeue; give --trials\n"
    assert not job.calls("srun")


def test_a_run_that_ends_by_itself_ends_the_nodes_and_gives_its_code(job):
    (job.tools / "hpo").write_text("#!/bin/bash\nsleep 0.5\nexit 3\n")
    process = job.start("study", nodes=f"{HEAD},{LATE}")
    process.communicate(timeout=20)
    assert process.returncode == 3
    assert not [call for call in job.calls("scontrol") if call.startswith("requeue")]
    wait_for(lambda: not job.left(), 20)


@pytest.mark.slow
def test_a_job_with_a_late_node_and_one_that_never_comes_stops_and_goes_on(real):
    scene = Scene(real.folder, GRID.replace("seeds = 6", "seeds = 40").replace("= 16", "= 400"))
    nodes = f"{HEAD},{LATE},{NEVER}"
    process = real.start("study.toml", nodes=nodes)
    wait_for(lambda: scene.states()["COMPLETE"] or process.poll() is not None)
    (real.folder / "come").touch()
    shown = [BIN / "hpo", "show", "study"]

    def show() -> str:
        return subprocess.run(shown, cwd=real.folder, capture_output=True, text=True).stdout

    wait_for(lambda: "waiting for nodes: 2 of 3 are there" in show(), 60)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 130, said
    assert "waiting for nodes: 1 of 3 are there" in said
    assert f"requeue {os.getpid()}" in real.calls("scontrol")
    assert (real.folder / "reports/study/index.html").is_file()
    first = scene.states()["COMPLETE"]
    wait_for(lambda: not real.left(), 40)
    process = real.start("study.toml", "--fresh", nodes=nodes, SLURM_RESTART_COUNT="1")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert 0 < first < 120
    check_grid(scene.trials(), 3, 40)
    study = optuna.load_study(study_name="study", storage=scene.storage())
    assert study.user_attrs["progress"]["waiting"] == "waiting for nodes: 2 of 3 are there"
    wait_for(lambda: not real.left(), 40)
    assert not Path(f"/tmp/hpo-ray-{os.getpid()}").exists()
