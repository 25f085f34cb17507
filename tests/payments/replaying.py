"""A client that sends one request again and again, on threads; prints the answers as JSON.

Arguments: the URLs of facilitators, separated by commas, and how often. The request is its input.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx

THREADS = 4


def main(urls: list[str], times: int) -> None:
    """Every thread begins at once and asks the facilitators in turn."""
    request = json.load(sys.stdin)
    together = Barrier(THREADS)

    def ask(thread: int) -> list[Any]:
        with httpx.Client(trust_env=False, timeout=60) as client:
            together.wait()
            return [
                client.post(f"{urls[(thread + turn) % len(urls)]}/settle", json=request).json()
                for turn in range(times // THREADS)
            ]

    with ThreadPoolExecutor(THREADS) as pool:
        answers = [answer for found in pool.map(ask, range(THREADS)) for answer in found]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1].split(","), int(sys.argv[2]))
