"""Fixtures that every room's tests may use."""

from collections.abc import Iterator

import pytest

from tests.support.lab import Lab, lab


@pytest.fixture
def network() -> Iterator[Lab]:
    """A network of its own for real peers (tests/support/peers.py)."""
    with lab() as made:
        yield made
