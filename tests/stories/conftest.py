"""One network and one registrar for the stories of a module; every story has its own station."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Lab, lab
from tests.support.peers import Kamailio, kamailio
from tests.support.sounds import write_speech

USERS = {"door": "door-secret", "indoor": "indoor-secret", "attic": "attic-secret"}


@pytest.fixture(scope="module")
def town() -> Iterator[Lab]:
    """The network of the stories of one module."""
    with lab() as made:
        yield made


@pytest.fixture(scope="module")
def proxy(town: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kamailio]:
    """A registrar and proxy: MD5, one Record-Route."""
    with kamailio(town, tmp_path_factory.mktemp("proxy"), USERS) as running:
        yield running


@pytest.fixture(scope="session")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is said at the door, again and again."""
    return write_speech(tmp_path_factory.mktemp("visitor") / "visitor.wav", 6, seed=1)


@pytest.fixture(scope="session")
def resident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is said indoors."""
    return write_speech(tmp_path_factory.mktemp("resident") / "resident.wav", 12, seed=2)
