"""What the figures were measured on."""

import os
import platform
import sqlite3
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil

from bench.run import percentile

ROOT = Path(__file__).parents[1]
IN_MEMORY = ("tmpfs", "ramfs")
FSYNC_BYTES = 4096
FSYNCS = 200
LIBRARIES = ("tallystick", "sqlalchemy", "psycopg", "msgspec", "coincurve", "httpx")


def machine(directory: Path) -> dict[str, object]:
    """Processor, memory, kernel, disk: what decides figures besides the code."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "file_system": file_system(directory),
        **_fsync_ms(directory),
        "load_before": os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    """Of what is the same for all; a contender's own are in what it prepared."""
    return {
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        **{name: version(name) for name in LIBRARIES},
    }


def commit() -> str:
    """The commit that is checked out; with "+" if files differ from it."""
    head = _git("rev-parse", "HEAD")
    return head + ("+" if _git("status", "--porcelain", "--", ".", ":!bench/results.*") else "")


def file_system(directory: Path) -> str:
    """The type of the file system that a directory is on."""
    resolved = directory.resolve()
    mounts = psutil.disk_partitions(all=True)
    holding = [mount for mount in mounts if resolved.is_relative_to(mount.mountpoint)]
    return str(max(holding, key=lambda mount: len(mount.mountpoint)).fstype)


def _fsync_ms(directory: Path) -> dict[str, float | None]:
    """How long it takes to make 4 KiB more durable: the least that a commit costs."""
    taken_ms = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            started = time.perf_counter()
            file.write(b"\x5a" * FSYNC_BYTES)
            os.fsync(file.fileno())
            taken_ms.append((time.perf_counter() - started) * 1000)
    (directory / "fsync").unlink()
    return {"fsync_p50_ms": median(taken_ms), "fsync_p99_ms": percentile(taken_ms, 99)}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
