import os
from pathlib import Path

import pytest

os.environ.pop("ADATOM_MEMORY", None)  # a developer's own memory must not answer a test
if "PYTEST_XDIST_WORKER" in os.environ:
    # Test files run side by side: threads of both would wait for each other on few cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real micrographs, which are not part of the project."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real micrographs of ../shared/data are not here")
    return path
