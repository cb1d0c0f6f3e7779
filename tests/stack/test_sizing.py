"""A container sizes itself by the quota that it was really given."""

import pytest

from tests.stack.containers import Stack, docker

QUOTA = "from config.sizing import quota; print(quota())"


@pytest.mark.parametrize(
    ("options", "processors"), [((), "None"), (("--cpus=1.5",), "1.5"), (("--cpus=0.25",), "0.25")]
)
def test_a_container_knows_its_quota(stack: Stack, options: tuple[str, ...], processors: str) -> None:
    image = stack.container("backend").inspect()["Config"]["Image"]

    seen = docker("run", "--rm", "--network=none", "--read-only", *options, image, "python", "-c", QUOTA).stdout

    assert seen.strip() == processors


def test_a_backend_has_as_many_workers_as_it_says(stack: Stack) -> None:
    for backend in stack.containers("backend"):
        said = int(backend.execute("python", "-m", "config.sizing").stdout)
        children = "cat $(grep -l '[g]unicorn' /proc/[0-9]*/cmdline | sed 's|cmdline|task/*/children|')"
        started = backend.execute("sh", "-c", children).stdout.split()

        assert said == len(started)
