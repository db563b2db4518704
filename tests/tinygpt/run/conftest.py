import shutil
from pathlib import Path

import pytest

from tests.support.runs import TINY, finished_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run, to copy."""
    return finished_run(tmp_path_factory.mktemp("work"), **TINY)


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run, to break."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
