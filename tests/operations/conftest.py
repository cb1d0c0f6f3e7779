"""What the tests of operating a stack share: the running stack, as tests/stack has it."""

from tests.stack.conftest import alice, bob, client, disturbed, pytest_sessionstart, stack

__all__ = ["alice", "bob", "client", "disturbed", "pytest_sessionstart", "stack"]
