"""The retrying storage keeps Optuna's contract: Optuna's own test suite passes on it."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import opened
from optuna.storages import BaseStorage, RDBStorage
from optuna.testing.pytest_storages import StorageTestCase

from hpo.storage.open import open_storage
from hpo.storage.retry import retrying

# The suite leaves the connections of pickled copies open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True, scope="module")
def _collected() -> Iterator[None]:
    """Collects the connections that Optuna leaves open here, and not in a later module's test."""
    yield
    gc.collect()


class TestRetryingStorage(StorageTestCase):
    @pytest.fixture(
        params=[
            "sqlite:///{}/hpo.db",
            "journal:///{}/hpo.log",
            pytest.param("postgresql", marks=pytest.mark.slow),
        ]
    )
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
        url = request.param.format(tmp_path)
        if url == "postgresql":
            url = request.getfixturevalue("postgres")(f"contract_{abs(hash(request.node.name))}")
        backend = opened(tmp_path) if url.startswith("sqlite") else open_storage(url)
        yield retrying(backend, url, print)
        if isinstance(backend, RDBStorage):
            backend.engine.dispose()
