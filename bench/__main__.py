"""The command: `python -m bench`, or rather `scripts/bench`."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench import machine, results, shown
from bench.contender import Workload
from bench.contenders import CONTENDERS
from bench.run import measure

HERE = Path(__file__).parent
PUBLISHED = HERE / "results.json"
PARTIAL = HERE / "partial" / "results.json"
SECONDS = 10.0
ROUNDS = 3
QUICK_SECONDS = 1.0
QUICK_ROUNDS = 2
QUICK_SIZE = 0.001
SEED = 1


def main(arguments: list[str] | None = None) -> int:
    """Measure; returns the exit status: 1 if a contender failed."""
    asked = _arguments(arguments)
    kinds = [kind for kind in CONTENDERS if not asked.only or kind.name in asked.only]
    missing = {kind.name: why for kind in kinds if (why := kind.missing())}
    directory = Path(tempfile.mkdtemp(prefix="tallystick-bench-", dir=asked.directory))
    try:
        directory.chmod(0o755)  # a database server may run as another user
        if machine.file_system(directory) in machine.IN_MEMORY and not asked.quick:
            print(f"{directory} is in memory, where nothing is durable: name a --directory on disk")
            return 2
        about = {
            "commit": machine.commit(),
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine.machine(directory),
            "versions": machine.versions(),
            "settings": {
                name: getattr(asked, name) for name in ("seed", "size", "seconds", "rounds")
            },
        }
        measured = measure(
            [kind for kind in kinds if kind.name not in missing],
            Workload(asked.seed, asked.size, directory),
            seconds=asked.seconds,
            rounds=asked.rounds,
            say=_say,
        )
    except KeyboardInterrupt:
        print("interrupted: nothing is written", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(directory)
    document = results.document(measured, missing, about)
    output = PARTIAL if document["failed"] and asked.output == PUBLISHED else asked.output
    results.write(document, output)
    output.with_suffix(".svg").write_text(shown.picture(document))
    print(shown.table(document))
    print(f"written: {output} and {output.with_suffix('.svg').name}")
    return 1 if document["failed"] else 0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    names = [kind.name for kind in CONTENDERS]
    parser.add_argument(
        "--quick", action="store_true", help="only see whether it runs; the figures mean nothing"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=names, help=", ".join(names)
    )
    parser.add_argument("--seed", type=int, default=SEED, help=f"of all draws ({SEED})")
    parser.add_argument("--size", type=float, help="scales sessions, histories and logs (1)")
    parser.add_argument("--seconds", type=float, help=f"of a turn ({SECONDS:g})")
    parser.add_argument("--rounds", type=int, help=f"turns of each contender ({ROUNDS})")
    parser.add_argument("--directory", type=Path, help="on the disk to measure (the temporary one)")
    parser.add_argument("--output", type=Path, help=f"default {PUBLISHED.relative_to(HERE.parent)}")
    asked = parser.parse_args(arguments)
    # What is published is only ever one whole run as the documentation describes it.
    whole = (asked.only, asked.size, asked.seconds, asked.rounds) == (None,) * 4 and not asked.quick
    defaults = {
        "size": QUICK_SIZE if asked.quick else 1.0,
        "seconds": QUICK_SECONDS if asked.quick else SECONDS,
        "rounds": QUICK_ROUNDS if asked.quick else ROUNDS,
        "output": PUBLISHED if whole else PARTIAL,
    }
    for name, value in defaults.items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    return asked


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
