"""What is typed at a command line, before anybody is asked."""

from pathlib import Path

import pytest
from doorstation.cli import main
from doorstation.ordering import _change


@pytest.mark.parametrize(
    "value",
    ["9" * 5000, f"0x{'f' * 5000}", "2026-11-22", "nan", "[inf]", "[" * 5000],
    ids=lambda value: value[:10],
)
def test_a_value_that_no_setting_can_have_is_told_by_its_key(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "doorstation: sip.port: a value that no setting can have\n"
    nobody = ("config", "--socket", str(tmp_path / "none"))
    assert main([*nobody, "set", f"sip.port={value}"]) == 1
    assert capsys.readouterr().err == told


def test_the_same_in_a_file_that_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "door.toml"
    file.write_text("[sip]\nt1 = nan\n")
    assert main(["config", "--socket", str(tmp_path / "none"), "import", str(file)]) == 1
    assert capsys.readouterr().err == "doorstation: sip.t1: a value that no setting can have\n"


@pytest.mark.parametrize("value", ["9" * 5000, "NaN", "[1e999]", "[" * 50_000])
def test_what_json_cannot_say_is_ordered_as_a_text_which_the_door_refuses_by_its_key(
    value: str,
) -> None:
    assert _change([f"sip.port={value}"])["set"] == {"sip.port": value}
