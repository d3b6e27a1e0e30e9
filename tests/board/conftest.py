import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "kernel: runs in a User Mode Linux kernel with simulated GPIO and sound"
    )
