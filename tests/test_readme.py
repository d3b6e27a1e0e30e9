"""The README's configurations are ones that the door starts with, its commands exist."""

import re
import shlex
from pathlib import Path

import pytest
from doorstation import cli
from doorstation.settings.reader import problems

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = re.findall(r"^    .*?doorstation ((?:check|ctl|run|doctor)\b.*)$", README, re.MULTILINE)
CONFIGURATIONS = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


def test_there_is_one_for_each_kind_of_house() -> None:
    assert len(CONFIGURATIONS) == 4
    assert len(CONFIGURATIONS[0].split()) < 40


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_configuration_has_no_problems(configuration: str) -> None:
    assert problems(configuration) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_one_that_there_is(command: str) -> None:
    cli._parser().parse_args(shlex.split(command, comments=True))


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 6
