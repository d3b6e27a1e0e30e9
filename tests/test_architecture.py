"""Where a newcomer looks, everything is named: docs/architecture.md, and the rooms' own lists."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ROOT / "firmware" / "doorstation"
ROOMS = [file.parent for file in sorted(PRODUCT.glob("*/**/__init__.py"))]


def names(folder: Path) -> list[str]:
    """Its modules as `name.py`, its packages as `name/`."""
    modules = [file.name for file in folder.glob("*.py") if file.name != "__init__.py"]
    return [*modules, *(f"{file.parent.name}/" for file in folder.glob("*/__init__.py"))]


def test_the_page_names_every_room_and_module_of_the_product() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert [name for name in names(PRODUCT) if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    "room", [ROOT / "board" / "doorboard", *ROOMS], ids=lambda room: str(room.relative_to(ROOT))
)
def test_a_room_lists_its_files(room: Path) -> None:
    listed = (room / "__init__.py").read_text()
    assert [name for name in names(room) if name not in listed] == []
