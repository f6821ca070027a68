"""The trials' learning curves as Optuna artifacts, which optuna-dashboard shows."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage

from hpo.runs.plan import Watcher

if TYPE_CHECKING:
    from hpo.report.figures.trial import Curve, CurvePicture

NAME = "learning-curve.png"
# Seconds of drawing that are taken in any case, and the share of the time that more of it may take:
# a picture takes 25 to 70 ms of the runner, which has one core.
AT_ONCE, SHARE = 5.0, 0.1


class CurveArtifacts(Watcher):
    """Attaches a picture of its learning curve to each trial before the trial ends.

    If the folder cannot be written, `say` is told once, no more pictures are drawn, and trials go
    on without them. If trials end faster than SHARE allows for long, some of them have no picture.
    """

    def __init__(self, storage: BaseStorage, folder: Path, say: Callable[[str], None]) -> None:
        self.storage, self.folder, self.say = storage, folder, say
        self.store = FileSystemArtifactStore(folder)
        self.writable, self.some_left_out = True, False
        self.allowed, self.asked = AT_ONCE, time.monotonic()  # allowed: seconds of drawing
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            self._give_up(error)

    @cached_property
    def drawing(self) -> "CurvePicture":
        """Imports matplotlib once the workers train."""
        from hpo.report.figures.trial import CurvePicture

        return CurvePicture()

    def on_trial(self, trial: int, curve: "Curve", epochs: int) -> None:
        if not (self.writable and self._may_draw()):
            return
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / NAME
                path.write_bytes(self.drawing.png(curve, epochs))
                upload_artifact(
                    artifact_store=self.store,
                    file_path=str(path),
                    study_or_trial=self.storage.get_trial(trial),
                    storage=self.storage,
                    mimetype="image/png",
                )
        except OSError as error:
            self._give_up(error)
        self.allowed -= time.monotonic() - began

    def _may_draw(self) -> bool:
        now = time.monotonic()
        self.allowed = min(self.allowed + SHARE * (now - self.asked), AT_ONCE)
        self.asked = now
        if self.allowed > 0:
            return True
        if not self.some_left_out:
            self.some_left_out = True
            self.say("trials end too fast to draw all of them; some have no picture")
        return False

    def _give_up(self, error: OSError) -> None:
        self.writable = False
        self.say(
            f"artifact folder {self.folder}: cannot be written ({error.strerror or error}); the "
            "run goes on without pictures in the dashboard"
        )


def remove(storage: BaseStorage, study_id: int, folder: Path) -> None:
    """Removes the pictures of a study's trials, and the folder if it is empty then."""
    store = FileSystemArtifactStore(folder)
    for trial in storage.get_all_trials(study_id, deepcopy=False):
        attributes = trial.system_attrs.items()
        metas = [json.loads(text) for key, text in attributes if key.startswith("artifacts:")]
        # Optuna's own list of them fails on the null that the dashboard leaves behind for a
        # deleted artifact.
        for meta in filter(None, metas):
            with suppress(ArtifactNotFound, OSError):
                store.remove(meta["artifact_id"])
    with suppress(OSError):
        os.rmdir(folder)
