"""Fixtures that every room's tests may use."""

import logging
import os
from collections.abc import Iterator

import pytest
from doorstation.store import tpm
from hypothesis import HealthCheck, settings

from tests.support.lab import Lab, lab

# How fast an example is made or passes says how busy the machine is, and nothing else.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# No door of a test makes its key with this machine's TPM, unless it says so.
os.environ.setdefault(tpm.WAY, "")


@pytest.fixture
def network() -> Iterator[Lab]:
    """A network of its own for real peers (tests/support/peers.py)."""
    with lab() as made:
        yield made


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(logging.Formatter().format(record))


@pytest.fixture(autouse=True)
def complaints() -> Iterator[list[str]]:
    """What asyncio only logs: an exception in a callback, or of a task that nobody waited for.

    A test that means it clears the list; any other fails by it.
    """
    handler = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)
    assert not handler.texts, "\n".join(handler.texts)
