"""Runs the workload on one engine and prints the measurements as one JSON line: the Python twin of measure.ts.

The job comes from run.ts as JSON in the first argument; its fields are listed in measure.ts.
"""

import json
import resource
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

Job = dict[str, Any]


class Peer(Protocol):
    """An engine with one sequence, and its keys and values."""

    def forward(self, ids: list[int]) -> int:
        """Runs ids behind those kept; the index of the largest of the last one's logits."""

    def truncate(self, position: int) -> None:
        """Forgets everything from `position` on."""


def quick_start(peer: Peer, job: Job) -> tuple[list[int], float, float]:
    """A prompt and greedy steps behind it: ids, milliseconds of the prompt and of the steps."""
    peer.truncate(0)
    start = perf_counter()
    ids = [peer.forward(job["promptIds"])]
    prompt_done = perf_counter()
    for _ in range(job["steps"]):
        ids.append(peer.forward([ids[-1]]))
    return ids, 1e3 * (prompt_done - start), 1e3 * (perf_counter() - prompt_done)


def best(peer: Peer, job: Job) -> tuple[int, float]:
    """One forward behind a kept prefix: its id and milliseconds. The prefix is not timed."""
    peer.truncate(0)
    peer.forward(job["prefixIds"])
    start = perf_counter()
    best_id = peer.forward(job["tailIds"])
    return best_id, 1e3 * (perf_counter() - start)


def measure(load: Callable[[Job], Peer]) -> None:
    """`load`: what is timed as loading; imports are done before."""
    job: Job = json.loads(sys.argv[1])
    start = perf_counter()
    peer = load(job)
    load_ms = 1e3 * (perf_counter() - start)
    warm_ids, first_prefill_ms, first_steps_ms = quick_start(peer, job)
    warm_best, _ = best(peer, job)
    ids, prefill_ms, steps_ms = quick_start(peer, job)
    best_id, best_ms = best(peer, job)
    if ids != warm_ids or best_id != warm_best:
        raise RuntimeError(f"ids: expected those of the warm-up {warm_ids} {warm_best}, got {ids} {best_id}")
    result = {
        "loadMs": load_ms,
        "firstQuickStartMs": first_prefill_ms + first_steps_ms,
        "quickStartMs": prefill_ms + steps_ms,
        "prefillMs": prefill_ms,
        "decodeTokensPerSecond": 1e3 * job["steps"] / steps_ms,
        "bestMs": best_ms,
        "peakRssMb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024),
        "ids": ids,
        "bestId": best_id,
    }
    print(json.dumps(result), flush=True)
