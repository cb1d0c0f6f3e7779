"""How many worker processes a container gets when nobody says: as many as it has processors.

``os.cpu_count()`` sees the host. What a container may use is its quota, which the kernel keeps in the files of its
control group, and no more than the processors that it may run on (docs/decisions/0049).

    python -m config.sizing     how many this process would start
"""

import math
import os
from pathlib import Path

MOST = 8
"""What fits into the 512 MB of BACKEND_MEMORY_MB, at up to 50 MB each."""

CONTROL_GROUP = Path("/sys/fs/cgroup")


def quota(folder: Path = CONTROL_GROUP) -> float | None:
    """Return how many processors this container may use, or None where it has no quota of its own."""
    try:
        # https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
        allowed, period = (folder / "cpu.max").read_text().split()
    except FileNotFoundError:
        try:
            # https://docs.kernel.org/scheduler/sched-bwc.html, the first version
            allowed, period = ((folder / f"cpu/cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except FileNotFoundError:
            return None
    return int(allowed) / int(period) if allowed.strip() not in ("max", "-1") else None


def least(replicas: int) -> int:
    """Return how few workers a container starts, so that there are two in all containers; scripts/deploy has it too."""
    return 1 if replicas > 1 else 2


def workers(*, threads: int, replicas: int, connections: int, folder: Path = CONTROL_GROUP) -> int:
    """Return how many workers, of ``threads`` each, suit this container and leave room in the database.

    ``connections`` are those that all backends may take. Half of them are left to a second set of containers, which
    ./scripts/deploy starts beside the first.
    """
    allowed, affinity = quota(folder), len(os.sched_getaffinity(0))
    # A quota can be larger than what a container is bound to. Without one the replicas share their processors.
    processors = min(allowed, affinity) if allowed else affinity / replicas
    fitting = connections // (2 * threads * replicas)
    return max(least(replicas), min(math.ceil(processors), fitting, MOST))


def main() -> None:
    """Print the number of workers."""
    from config.env import load  # noqa: PLC0415 # which imports this module

    print(load().workers)


if __name__ == "__main__":
    main()
