"""Fixtures of the tests on engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engines.hosts import need
from engines.slurm import PROGRAMS, Cluster, cluster_of


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three nodes of a real Slurm."""
    need(*PROGRAMS)
    with cluster_of(3) as lent:
        yield lent
