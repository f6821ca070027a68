"""The learning curves that trials carry in the dashboard: pictures in a folder of artifacts."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from hpo.report.figures.trial import Curve, CurvePicture

NAME = "learning-curve.png"


class Pictures:
    """Draws the curves of a storage's trials into a folder. One that cannot be written costs the
    pictures, never a trial; `fault` says so then, in a line."""

    def __init__(self, storage: BaseStorage, folder: Path) -> None:
        self.storage = storage
        self.folder = folder
        self.store = FileSystemArtifactStore(folder)
        self.drawing = CurvePicture()
        self.fault = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            self._give_up(error)

    def attach(self, trial: int, curve: Curve, epochs: int) -> None:
        """Gives a trial (its id), that has not ended yet, the picture of its curve."""
        if self.fault:
            return
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

    def _give_up(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        self.fault = (
            f"NOTE: artifact folder {self.folder}: cannot be written ({reason}); going on, without "
            "pictures in the dashboard"
        )


def remove(storage: BaseStorage, study_id: int, folder: Path) -> None:
    """Removes the pictures of a study's trials, and the folder if nothing else is in it."""
    store = FileSystemArtifactStore(folder)
    for trial in storage.get_all_trials(study_id, deepcopy=False):
        for artifact in _artifacts(trial):
            with suppress(ArtifactNotFound, OSError):
                store.remove(artifact)
    with suppress(OSError):
        os.rmdir(folder)


def _artifacts(trial: FrozenTrial) -> list[str]:
    """The ids of its artifacts; one that was deleted in the dashboard leaves null behind, on which
    Optuna's own list of them fails."""
    attributes = trial.system_attrs.items()
    found = [json.loads(text) for key, text in attributes if key.startswith("artifacts:")]
    return [meta["artifact_id"] for meta in found if meta]
