"""A file system that is really full, and one that is read-only (see `full_disk`)."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_full_disk_denies_until_there_is_room_and_a_read_only_one_is_refused(
    tmp_path: Path, own_mounts: list[str]
) -> None:
    command = [*own_mounts, sys.executable, "-m", "tests.durability.full_disk", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["answers until it was full"] > 100
    assert figures["refused while it was full"] > 0
    assert figures["starts refused while it was read-only"] == 2
