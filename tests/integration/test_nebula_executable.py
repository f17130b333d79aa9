import os
from pathlib import Path

import pytest

from edgegc.nebula.executable import InstalledNebula, NebulaUnusable


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    path = tmp_path / "nebula"
    path.write_text("#!/bin/sh\necho 'Version: 1.6.1'\n")
    path.chmod(0o755)
    return path


async def test_nebula_that_stays_as_it_was_is_the_same_one(executable: Path) -> None:
    installed = InstalledNebula(executable)
    assert await installed.find() == await installed.find() == (executable, (1, 6, 1))
    assert installed.generation == 1


async def test_nebula_seen_unusable_counts_as_another_one_when_it_is_back(executable: Path) -> None:
    # Several ask the same InstalledNebula: it may be back before the one that compares generations looks again.
    installed = InstalledNebula(executable)
    await installed.find()
    os.chmod(executable, 0o644)
    with pytest.raises(NebulaUnusable, match="is not executable"):
        await installed.find()
    os.chmod(executable, 0o755)
    assert await installed.find() == (executable, (1, 6, 1))
    assert installed.generation == 2
