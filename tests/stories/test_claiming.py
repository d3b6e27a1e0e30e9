"""A door on the wall without an owner, claimed in a browser by who stands before its label."""

import asyncio
import ssl
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from doorstation.provision.claim import FREE
from doorstation.provision.jws import PrivateKey
from playwright.async_api import expect

from tests.support.browser import chromium
from tests.support.files import signed, web_server
from tests.support.lab import Lab
from tests.support.station import Station, station

PORT = 8443
KEY = PrivateKey.new()
OWNER = KEY.public


def settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "peers.indoor.uri": "sip:198.18.0.99",
        "provisioning.state": str(tmp_path / "state"),
        "provisioning.discovery": "off",
        "provisioning.claim_port": PORT,
        **more,
    }


def wait_page(door: Station) -> None:
    door.process.ready(lambda: "claim page on port" in door.process.log_text(), "has its page", 20)


def label(door: Station) -> dict[str, str]:
    found: dict[str, str] = door.command("keys")["door"]
    return found


def sent(door: Station, **form: str) -> tuple[int, str]:
    """What the page answers, and the certificate is the door's own."""
    context = ssl.create_default_context(cadata=ssl.get_server_certificate((door.address, PORT)))
    context.check_hostname = False
    body = urllib.parse.urlencode(form).encode() if form else None
    try:
        with urllib.request.urlopen(
            f"https://{door.address}:{PORT}/", body, 10, context=context
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def test_who_types_the_code_names_the_owner_and_then_there_is_no_page(
    town: Lab, tmp_path: Path
) -> None:
    async def in_a_browser(door: Station) -> None:
        async with chromium() as browser:
            page = await browser.new_page(ignore_https_errors=True)
            faults: list[str] = []
            page.on("console", lambda line: faults.append(line.text))
            await page.goto(f"https://{door.address}:{PORT}/")
            own = label(door)
            await expect(page.locator("dd").nth(0)).to_have_text(own["door"])
            await expect(page.locator("dd").nth(1)).to_have_text(own["key"])
            assert own["claim"] not in await page.content()
            assert faults == []
            await page.get_by_label("Claim code").fill(own["claim"])
            await page.get_by_label("Owner's public key").fill(OWNER.text)
            await page.get_by_role("button").click()
            await expect(page.get_by_role("status")).to_contain_text(f"key {OWNER.kid} is")

    with station(town, tmp_path / "door", settings(tmp_path)) as door:
        wait_page(door)
        asyncio.run(in_a_browser(door))
        assert door.command("keys")["keys"]["owner"]["public"] == OWNER.text
        assert door.wait_event("owner", rule="claim code")["kid"] == OWNER.kid
        door.process.ready(lambda: "claim page ended" in door.process.log_text(), "ends it", 10)
        assert not listening(door)
    with station(town, tmp_path / "again", settings(tmp_path)) as door:
        # The owner stays; the page does not come back.
        assert door.command("keys")["keys"]["owner"]["public"] == OWNER.text
        assert not listening(door)


def listening(door: Station) -> bool:
    try:
        ssl.get_server_certificate((door.address, PORT), timeout=5)
    except OSError:
        return False
    return True


def test_page_of_a_door_that_was_claimed_by_first_use_says_so_and_takes_nothing(
    town: Lab, tmp_path: Path
) -> None:
    with web_server(town, tmp_path / "web", town.address()) as web:
        url = web.put("door.jws", signed(KEY, settings={"audio": {"country": "fr"}}))
        first_use = settings(tmp_path, **{"provisioning.first_use": True, "provisioning.url": url})
        with station(town, tmp_path / "door", first_use) as door:
            door.wait_log("to say who claimed the door", 20)
            status, said = sent(door)
            told = door.status()["first_use"]
            assert status == 200
            assert told.partition(" at ")[2][:16] in said
            assert OWNER.kid in said
            assert "config reset" in said
            assert "<form" not in said
            label_code = label(door)["claim"]
            status, said = sent(door, code=label_code, key=PrivateKey.new().public.text)
            assert status == 410
            assert OWNER.kid in said
            assert door.command("keys")["keys"] == {}
            # Who resets the door finds the form again.
            (web.folder / "door.jws").unlink()
            door.command("config reset")
            door.process.ready(
                lambda: (
                    door.process.log_text()
                    .rpartition("claim page on port")[2]
                    .startswith(f" {PORT}, until the door has an owner")
                ),
                "has its form",
                20,
            )
            assert "<form" in sent(door)[1]


def test_a_wrong_code_claims_nothing_and_too_many_are_not_looked_at(
    town: Lab, tmp_path: Path
) -> None:
    with station(town, tmp_path / "door", settings(tmp_path)) as door:
        wait_page(door)
        for _ in range(FREE):
            assert sent(door, code="111 111 111", key=OWNER.text)[0] == 403
        status, said = sent(door, code=label(door)["claim"], key=OWNER.text)
        assert status == 429
        assert "minute" in said
        assert door.command("keys")["keys"] == {}
        assert listening(door)
    # Nor is the card worn out: each line is synced to it.
    assert (tmp_path / "state" / "asked.jsonl").read_bytes().count(b'"claim"') == FREE


def test_the_right_code_with_what_is_no_key_or_no_url_changes_nothing_and_says_why(
    town: Lab, tmp_path: Path
) -> None:
    with station(town, tmp_path / "door", settings(tmp_path)) as door:
        wait_page(door)
        code = label(door)["claim"]
        status, said = sent(door, code=code, key="<b>short</b>")
        assert status == 422
        assert "&lt;b&gt;" in said
        assert "<b>" not in said
        status, said = sent(door, code=code, key=OWNER.text, url="gopher://files")
        assert status == 409
        assert "provisioning.url" in said
        assert door.command("keys")["keys"] == {}


def test_a_door_with_an_owner_or_without_the_setting_has_no_page(town: Lab, tmp_path: Path) -> None:
    owned = {"keys.owner": {"public": OWNER.text, "role": "owner"}}
    for name, more in (("owned", owned), ("unasked", {"provisioning.claim_port": 0})):
        folder = tmp_path / name
        with station(town, folder, settings(folder, **more)) as door:
            assert not listening(door)
            assert "claim page" not in door.process.log_text()
