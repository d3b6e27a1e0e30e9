"""What is known of each supported board: GPIO chip, pins that suit, sound cards, quirks.

One TOML file a board in `profiles/`; a file put there is a board supported.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from doorboard.interfaces import BoardError

FOLDER: Final = Path(__file__).parent / "profiles"
MODEL_FILE: Final = Path("/proc/device-tree/model")


@dataclass(frozen=True, slots=True)
class PinSuggestion:
    """A pin for a use. `pull` is for inputs, `active_high` for outputs."""

    pin: int
    pull: Literal["up", "down", "none"] | None = None
    active_high: bool | None = None


@dataclass(frozen=True, slots=True)
class SoundCard:
    title: str
    device: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A board. `pins` by use: button, contact, led, relay, relay_active_low.

    `opus_complexity`, 0 to 10: the CPU time that it has for that codec.
    """

    name: str
    title: str
    models: tuple[str, ...]
    chip: str
    serial_port: str
    opus_complexity: int
    pins: Mapping[str, PinSuggestion]
    sound: tuple[SoundCard, ...]
    quirks: tuple[str, ...]


def profile_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_profile(name: str) -> Profile:
    """The profile of that name; BoardError lists those there are."""
    if name not in profile_names():
        raise BoardError(f"no board profile {name!r}; there are {', '.join(profile_names())}")
    data: dict[str, Any] = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
    return Profile(
        name=name,
        title=data["title"],
        models=tuple(data["models"]),
        chip=data["chip"],
        serial_port=data["serial_port"],
        opus_complexity=data["opus_complexity"],
        pins={use: PinSuggestion(**pin) for use, pin in data["pins"].items()},
        sound=tuple(SoundCard(**card) for card in data["sound"]),
        quirks=tuple(data["quirks"]),
    )


def detect_profile(model: str | None = None) -> Profile | None:
    """The profile of this board (or of a model text); None: not one of those known."""
    if model is None:
        try:
            model = MODEL_FILE.read_text("utf-8", "replace")
        except OSError:
            return None
    model = model.rstrip("\0\n ")
    for name in profile_names():
        profile = load_profile(name)
        if model.startswith(profile.models):
            return profile
    return None
