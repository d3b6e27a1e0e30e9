"""The README's configurations are ones that the door starts with, all pages' commands exist."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from doorboard.profile import load_profile, profile_names
from doorstation import cli
from doorstation.settings.page import SMALLEST
from doorstation.settings.reader import problems

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = "\n".join([README, *(page.read_text() for page in DOCS)])
COMMANDS = re.findall(
    r"^ *(?:sudo |\S+/)?doorstation ([^`>\n]+)", PAGES.replace("\\\n", ""), re.MULTILINE
)
CONFIGURATIONS = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


def test_there_is_one_for_each_kind_of_house() -> None:
    assert len(CONFIGURATIONS) == 4
    assert len(CONFIGURATIONS[0].split()) < 40


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_configuration_has_no_problems(configuration: str) -> None:
    assert problems(configuration) == []


@pytest.mark.parametrize("name", profile_names())
def test_sketch_and_configurations_have_the_pins_that_the_boards_profile_suggests(
    name: str,
) -> None:
    drawn = dict(re.findall(r"GPIO (\d+) \(pin \d+\) -.* (button|LED|relay) ", README))
    suggested = {use: each.pin for use, each in load_profile(name).pins.items()}
    uses = {"button": "button", "LED": "led", "relay": "relay"}
    assert {uses[part]: int(pin) for pin, part in drawn.items()} == {
        use: suggested[use] for use in uses.values()
    }
    for configuration in (*CONFIGURATIONS, SMALLEST):
        raw = tomllib.loads(configuration)
        for section, use in (("buttons", "button"), ("leds", "led"), ("relays", "relay")):
            assert {each["pin"] for each in raw.get(section, {}).values()} <= {suggested[use]}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_one_that_there_is(command: str) -> None:
    cli._parser().parse_args(shlex.split(command, comments=True))


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20


def test_what_is_installed_can_fetch_configuration_files() -> None:
    found = re.search(r"pip install '\.\[(.*)\]'", README)
    assert found is not None
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert any("aiohttp" in package for extra in found[1].split(",") for package in extras[extra])
