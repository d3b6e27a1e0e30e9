"""The words that ship with the door, and what is heard of them at which moment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from doorstation import sound
from doorstation.media import tones
from doorstation.media.pcm import audioop
from doorstation.media.wav import Wav, parse_wav
from doorstation.settings.tree import Audio, Prompts
from doorstation.sound import read_sounds

from tests.support.wav import wav_bytes

SCRIPT = Path(__file__).parent.parent / "deploy" / "make-prompts.sh"


def choices(option: str) -> Sequence[str]:
    """What may stand in one of the settings' lists, or be the value of an option."""
    kind: Any = Prompts.__annotations__[option].__origin__
    names = get_args(kind)
    return get_args(names[0]) if option != "language" else names


MOMENTS = (*choices("visitor"), sound.WHO_RINGS)
LANGUAGES = [language for language in choices("language") if language != "off"]


def words(language: str, moment: str) -> Wav:
    return parse_wav((sound.PROMPTS / language / f"{moment}.wav").read_bytes())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_every_moment_has_words_in_every_language(language: str, moment: str) -> None:
    prompt = words(language, moment)
    assert prompt.rate == 16000
    assert 0.5 < prompt.seconds < 3, "a visitor does not wait for a long speech"
    assert 2000 < audioop.rms(prompt.pcm, 2) < 6000, "as loud as the tones"
    assert audioop.max(prompt.pcm, 2) < 30000, "not clipped"


def test_both_languages_of_a_moment_and_all_moments_of_a_language_differ() -> None:
    every = [words(language, moment).pcm for language in LANGUAGES for moment in MOMENTS]
    assert len(set(every)) == len(LANGUAGES) * len(MOMENTS)


def test_what_ships_is_what_the_script_makes() -> None:
    """Its lines `MOMENT text`, after `say LANGUAGE VOICE`."""
    made: dict[str, list[str]] = {}
    language = ""
    for line in SCRIPT.read_text().splitlines():
        if line.startswith("say ") and "<<" in line:
            language = line.split()[1]
        elif line.split(" ")[0] in MOMENTS:
            made.setdefault(language, []).append(line.split(" ")[0])
    shipped = {
        folder.name: sorted(file.stem for file in folder.iterdir())
        for folder in sound.PROMPTS.iterdir()
    }
    assert shipped == {language: sorted(names) for language, names in made.items()}


def test_words_to_the_far_end_are_of_moments_that_it_hears_at_all() -> None:
    assert set(choices("resident")) < set(MOMENTS)
    assert set(choices("visitor")) < set(tones.NAMES)


def test_without_prompts_tones_are_heard_and_no_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound, "PROMPTS", tmp_path / "nowhere")
    for heard in read_sounds(Audio(), Prompts()):
        assert heard == {name: tones.named(name, "de") for name in tones.NAMES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_heard_at_the_moments_of_the_settings_and_tones_at_the_others(
    language: Any,
) -> None:
    prompts = Prompts(
        language=language, visitor=("nobody_answers",), resident=("opened", "who_rings")
    )
    visitor, resident = read_sounds(Audio(), prompts)
    assert resident["who_rings"] == words(language, "who_rings")
    assert "who_rings" not in visitor
    for name in tones.NAMES:
        tone = tones.named(name, "de")
        spoken = name == "nobody_answers"
        assert visitor[name] == (words(language, name) if spoken else tone)
        assert resident[name] == (words(language, name) if name == "opened" else tone)


def test_an_announcement_of_the_owner_is_heard_in_place_of_word_and_tone(tmp_path: Path) -> None:
    own = Wav(8000, b"\1\2" * 800)
    for name in ("opened", "ringback", "calling"):
        (tmp_path / f"{name}.wav").write_bytes(wav_bytes(own.pcm, own.rate))
    (tmp_path / "who_rings_garden.wav").write_bytes(wav_bytes(own.pcm, own.rate))
    audio = Audio(announcements=str(tmp_path))
    assert read_sounds(audio, Prompts())[1]["who_rings_garden"] == own
    for prompts in (Prompts(), Prompts(language="en", resident=("opened",))):
        for heard in read_sounds(audio, prompts):
            assert heard["opened"] == heard["ringback"] == heard["calling"] == own
