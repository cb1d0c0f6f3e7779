"""What ./scripts/doctor does, with nothing but Python's standard library: a host that runs the stack has no more.

``installation`` gathers facts, each once and each bounded in time. Every other module turns some of them into
findings; ``__main__`` lists the checks in the order in which one thing is the cause of the next.
"""

import sys
from pathlib import Path

# What reads .env, and the registry of variables, which need no more either.
sys.path.append(str(Path(__file__).resolve().parents[2] / "backend"))
