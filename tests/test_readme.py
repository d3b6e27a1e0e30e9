"""The README's configurations are ones that the door starts with."""

import re
from pathlib import Path

import pytest
from doorstation.settings.reader import problems

README = (Path(__file__).parent.parent / "README.md").read_text()
CONFIGURATIONS = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


def test_there_is_one_for_each_kind_of_house() -> None:
    assert len(CONFIGURATIONS) == 4
    assert len(CONFIGURATIONS[0].split()) < 40


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_configuration_has_no_problems(configuration: str) -> None:
    assert problems(configuration) == []
