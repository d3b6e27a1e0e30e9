import pytest
from doorboard.interfaces import BoardError
from doorboard.profile import detect_profile, load_profile, profile_names


def test_the_supported_boards_have_a_profile() -> None:
    assert profile_names() == ("pi-3", "pi-4", "pi-5", "pi-zero-2w")


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_says_what_an_installer_needs(name: str) -> None:
    profile = load_profile(name)
    assert {"button", "contact", "led", "relay", "relay_active_low"} == set(profile.pins)
    pins = [suggestion.pin for suggestion in profile.pins.values()]
    assert len(set(pins)) == len(pins)
    assert profile.sound
    assert profile.quirks
    assert all(card.device.startswith("plughw:CARD=") for card in profile.sound)


@pytest.mark.parametrize("name", profile_names())
def test_suggested_pins_are_not_those_of_codec_boards_and_serial_ports(name: str) -> None:
    taken = {2, 3, 14, 15, 18, 19, 20, 21}
    taken |= {10, 11, 12, 13, 17, 23, 24, 27}  # their buttons, LEDs and sockets
    assert not taken & {suggestion.pin for suggestion in load_profile(name).pins.values()}


@pytest.mark.parametrize("name", profile_names())
def test_relays_rest_released_before_a_program_runs(name: str) -> None:
    pins = load_profile(name).pins
    # At power-on GPIO 0 to 8 are pulled up and the others down.
    assert pins["relay"].active_high
    assert pins["relay"].pin > 8
    assert pins["relay_active_low"].active_high is False
    assert pins["relay_active_low"].pin <= 8


@pytest.mark.parametrize(
    ("model", "name", "chip"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0\0", "pi-zero-2w", "pinctrl-bcm2835"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3\0", "pi-3", "pinctrl-bcm2835"),
        ("Raspberry Pi 4 Model B Rev 1.5\0", "pi-4", "pinctrl-bcm2711"),
        ("Raspberry Pi Compute Module 4 Rev 1.1\0", "pi-4", "pinctrl-bcm2711"),
        ("Raspberry Pi 5 Model B Rev 1.0\0", "pi-5", "pinctrl-rp1"),
    ],
)
def test_a_board_is_known_by_its_device_tree(model: str, name: str, chip: str) -> None:
    profile = detect_profile(model)
    assert profile is not None
    assert (profile.name, profile.chip) == (name, chip)


def test_another_board_is_not_taken_for_one_of_them() -> None:
    assert detect_profile("Radxa ZERO 3W\0") is None
    assert detect_profile("Raspberry Pi Model B Rev 2\0") is None


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(BoardError, match="no board profile 'pi-6'; there are pi-3, pi-4"):
        load_profile("pi-6")
