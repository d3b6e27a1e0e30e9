"""One network and one registrar for the stories of a module; every story has its own station."""

from collections.abc import Iterator

import pytest

from tests.support.lab import Lab, lab
from tests.support.peers import Kamailio, kamailio

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
