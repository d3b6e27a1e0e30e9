"""The try page in a real browser, and what guards it."""

import datetime
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from doorstation.web import try_page
from playwright.async_api import Browser, Page, expect

from tests.support.browser import chromium
from tests.support.waiting import until
from tests.web.two_sides import TOKEN, Trial, trial

# One browser for all: its start is what takes time.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def running(tmp_path: Path) -> AsyncIterator[Trial]:
    async with trial(tmp_path) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, running: Trial) -> AsyncIterator[Page]:
    """The page, open and connected; any fault of its script or its policy fails the test."""
    opened = await browser.new_page(viewport={"width": 1360, "height": 860})
    faults: list[str] = []
    opened.on("pageerror", lambda fault: faults.append(str(fault)))
    opened.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    await opened.goto(running.address)
    await expect(opened.locator("#connection")).to_have_text("Running")
    yield opened
    await opened.context.close()
    assert faults == []


class TestPage:
    async def test_press_answer_digit_and_the_lamp_lights(self, page: Page, running: Trial) -> None:
        door, phone = running.door, running.phone
        await page.click("#call-button")
        await until(lambda: door.asked == [("press", {"name": "call"})])
        running.ring()
        await expect(page.locator("#phone-state")).to_have_text("Front door is ringing")
        await expect(page.locator("#door-led")).to_have_attribute("data-pattern", "ringing")
        await page.click("#answer")
        await until(lambda: phone.asked == [("answer", {})])
        running.talk()
        await expect(page.locator("#phone-state")).to_have_text("Talking to Front door")
        await expect(page.locator("#phone-detail")).to_contain_text("PCMA")
        await page.click("#key-5")
        await until(lambda: phone.asked[-1] == ("dtmf", {"digits": "5"}))
        running.open()
        await expect(page.locator("#relay-lamp")).to_have_attribute("data-on", "true")
        await expect(page.locator("#relay-text")).to_have_text("Open")
        await page.click("#hangup")
        await until(lambda: phone.asked[-1] == ("hangup", {}))
        running.end()
        await expect(page.locator("#phone-state")).to_have_text("Ready")
        await expect(page.locator("#relay-pulses")).to_have_text("Opened once")

    async def test_decline_refuses_with_603(self, page: Page, running: Trial) -> None:
        running.ring()
        await page.click("#decline")
        await until(lambda: running.phone.asked == [("reject", {"code": 603})])

    async def test_buttons_that_would_do_nothing_are_off(self, page: Page, running: Trial) -> None:
        for name in ("answer", "decline", "hangup", "key-5"):
            await expect(page.locator(f"#{name}")).to_be_disabled()
        running.ring()
        await expect(page.locator("#answer")).to_be_enabled()
        await expect(page.locator("#hangup")).to_be_disabled()

    async def test_a_call_that_is_ending_is_no_call(self, page: Page, running: Trial) -> None:
        running.ring()
        running.talk()
        await expect(page.locator("#phone-state")).to_have_text("Talking to Front door")
        running.phone.call("ended")
        await expect(page.locator("#phone-state")).to_have_text("Ready")

    async def test_the_ladder_shows_every_message_with_direction_and_time(
        self, page: Page, running: Trial
    ) -> None:
        running.ring()
        rows = page.locator("#ladder .message")
        await expect(rows).to_have_count(3)
        await expect(rows.nth(0)).to_have_class(re.compile("sent request"))
        await expect(rows.nth(2)).to_have_class(re.compile("received progress"))
        await expect(rows.nth(2).locator(".label")).to_have_text("180 Ringing INVITE")
        await expect(rows.nth(2).locator("time")).to_have_text("0.011")

    async def test_a_click_shows_the_whole_message_and_another_hides_it(
        self, page: Page, running: Trial
    ) -> None:
        running.ring()
        row = page.locator("#ladder .message").first
        await row.locator("button").click()
        await expect(row.locator("pre")).to_contain_text("m=audio 20000 RTP/AVP 8 0 101")
        await row.locator("button").click()
        await expect(row.locator("pre")).to_have_count(0)

    async def test_what_a_peer_writes_is_shown_as_text(self, page: Page, running: Trial) -> None:
        line = "SIP/2.0 180 <img src=x onerror=alert(1)>"
        running.door.sip("received", line, "1 INVITE", 1.0)
        running.phone.call("ringing", peer='"<b>x</b>" <sip:a@127.0.0.1>')
        await expect(page.locator("#ladder .label")).to_contain_text("<img src=x")
        await expect(page.locator("#phone-state")).to_have_text("<b>x</b> is ringing")

    async def test_levels_move_the_bars(self, page: Page, running: Trial) -> None:
        levels = {"microphone_db": -18.0, "speaker_db": -31.4}
        running.door.server.publish("levels", levels)
        meter = page.locator("#microphone-level")
        await expect(meter).to_have_attribute("aria-valuenow", "-18")
        await expect(page.locator("#speaker-level")).to_have_attribute("aria-valuenow", "-31")

    async def test_a_refused_command_is_said(self, page: Page, running: Trial) -> None:
        running.door.refuse = "no such button"
        await page.click("#call-button")
        await expect(page.locator("#notice")).to_have_text("no such button")

    async def test_the_picture_says_why_nobody_talks_and_no_door_opens(
        self, page: Page, running: Trial
    ) -> None:
        for rule in ("no_answer", "declined", "busy", "unreachable"):
            running.door.record("call_failed", button="call", rule=rule)
        for rule in ("wrong_code", "locked_out"):
            running.door.record("code", call="1", digits=1, allowed=False, rule=rule)
        running.door.record("code", call="1", digits=1, allowed=True, rule="code")
        said = ["Nobody answers", "Declined", "Busy", "No connection", "Wrong code"]
        notes = page.locator("#ladder .note.fault")
        await expect(notes).to_have_text([*said, "Codes count for nothing now"])

    async def test_keys_of_the_keyboard_are_keys_of_the_phone_while_it_talks(
        self, page: Page, running: Trial
    ) -> None:
        asked = running.phone.asked
        await page.keyboard.press("5")
        running.talk()
        await expect(page.locator("#key-5")).to_be_enabled()
        for key in ("x", "Control+5", "7", "*", "#"):
            await page.keyboard.press(key)
        await until(lambda: len(asked) >= 3)
        assert asked == [("dtmf", {"digits": digit}) for digit in "7*#"]

    async def test_a_call_goes_on_counting_its_time_on_a_page_that_comes_later(
        self, page: Page, running: Trial
    ) -> None:
        running.talk()
        at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=125)
        running.door.record("answered", call="1", rule="first_answer", at=at.isoformat())
        await page.reload()
        await expect(page.locator("#phone-detail")).to_contain_text("2:0")

    async def test_a_press_brings_its_call_into_view_whatever_is_read(
        self, page: Page, running: Trial
    ) -> None:
        running.ring()
        await page.locator("#ladder .message button").first.click()
        for number in range(30):
            running.door.sip("received", "SIP/2.0 180 Ringing", "1 INVITE", 11.0 + number)
        running.ring()
        await expect(page.locator("#ladder .message").last).to_be_in_viewport()

    async def test_what_happens_is_brought_into_view_on_a_small_screen(
        self, page: Page, running: Trial
    ) -> None:
        await page.set_viewport_size({"width": 375, "height": 667})
        await expect(page.locator("#answer")).not_to_be_in_viewport()
        running.ring()
        for name in ("phone-state", "answer", "key-5"):
            await expect(page.locator(f"#{name}")).to_be_in_viewport()
        running.talk()
        await expect(page.locator("#relay-lamp")).not_to_be_in_viewport()
        running.open()
        for name in ("relay-lamp", "hangup", "key-5"):
            await expect(page.locator(f"#{name}")).to_be_in_viewport()

    async def test_a_reload_shows_the_call_so_far(self, page: Page, running: Trial) -> None:
        running.ring()
        await expect(page.locator("#ladder .message")).to_have_count(3)
        assert TOKEN not in page.url
        await page.reload()
        await expect(page.locator("#ladder .message")).to_have_count(3)
        await expect(page.locator("#phone-state")).to_have_text("Front door is ringing")

    async def test_a_station_that_ends_is_said(self, page: Page, running: Trial) -> None:
        await running.phone.server.__aexit__()
        await expect(page.locator("#connection")).to_have_text("The phone is not running")
        await expect(page.locator("#phone-state")).to_have_text("Off")

    async def test_sound_is_fetched_and_played_only_while_somebody_listens(
        self, page: Page, running: Trial
    ) -> None:
        await page.evaluate(
            """() => {
                window.frames = 0;
                const start = AudioBufferSourceNode.prototype.start;
                AudioBufferSourceNode.prototype.start = function (at) {
                    if (this.buffer.getChannelData(0).some((sample) => sample > 0.2)) frames += 1;
                    return start.call(this, at);
                };
            }"""
        )
        phone = running.phone.server
        assert not phone.wanted("audio:speaker")
        await page.check("#listen-phone")
        await until(lambda: phone.wanted("audio:speaker"))
        assert not running.door.server.wanted("audio:speaker")
        for number in range(10):
            running.phone.sound(440, number)
        await page.wait_for_function("frames == 10")
        await page.check("#listen-off")
        await until(lambda: not phone.wanted("audio:speaker"))

    @pytest.mark.parametrize("width", [360, 800, 1100])
    async def test_nothing_sticks_out_sideways(
        self, page: Page, running: Trial, width: int
    ) -> None:
        await page.set_viewport_size({"width": width, "height": 800})
        running.ring()
        running.talk()
        await expect(page.locator("#ladder .message")).to_have_count(5)
        await page.locator("#ladder .message button").first.click()
        over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.evaluate(over) == 0

    async def test_every_control_has_a_name_and_every_state_is_announced(self, page: Page) -> None:
        for name in ("Ring the bell", "Answer", "Decline", "Hang up", "5", "star", "hash"):
            await expect(page.get_by_role("button", name=name, exact=True)).to_have_count(1)
        await expect(page.get_by_role("status")).to_have_count(3)
        await expect(page.get_by_role("radio")).to_have_count(3)


class TestGuard:
    """Who gets the page and its socket."""

    @pytest_asyncio.fixture(loop_scope="module")
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as made:
            yield made

    @pytest.mark.parametrize("path", ["/", "/?t=wrong", "/try.js", "/try.js?t=" + TOKEN, "/socket"])
    async def test_without_the_token_there_is_nothing(
        self, running: Trial, session: aiohttp.ClientSession, path: str
    ) -> None:
        origin = {"Origin": f"http://127.0.0.1:{running.port}"}
        async with session.get(f"http://127.0.0.1:{running.port}{path}", headers=origin) as answer:
            assert answer.status == 403
            assert "door" not in (await answer.text()).replace("doorstation", "")

    async def test_the_token_becomes_a_strict_cookie_that_scripts_cannot_read(
        self, running: Trial, session: aiohttp.ClientSession
    ) -> None:
        async with session.get(running.address) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy

    @pytest.mark.parametrize(
        "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{}"]
    )
    async def test_another_host_name_is_refused(
        self, running: Trial, session: aiohttp.ClientSession, host: str
    ) -> None:
        headers = {"Host": host.format(running.port)}
        async with session.get(running.address, headers=headers) as answer:
            assert answer.status == 403

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
    async def test_a_socket_from_another_site_is_refused(
        self, running: Trial, session: aiohttp.ClientSession, origin: str | None
    ) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await _connect(running, session, origin)
        assert refusal.value.status == 403

    @pytest.mark.parametrize(
        "text",
        [
            '{"id": 1, "side": "door", "command": "message", "args": {}}',
            '{"id": 1, "side": "cellar", "command": "press", "args": {}}',
            '{"listen": "cellar"}',
            '{"id": Infinity, "side": "door", "command": "press", "args": {}}',
            "[" * 4000,
            "[]",
            "not JSON",
        ],
    )
    async def test_a_socket_that_asks_for_more_is_closed(
        self, running: Trial, session: aiohttp.ClientSession, text: str
    ) -> None:
        socket = await _connect(running, session, f"http://127.0.0.1:{running.port}")
        await socket.send_str(text)
        kinds = [message.type async for message in socket]
        assert set(kinds) <= {aiohttp.WSMsgType.TEXT}
        assert running.door.asked == []

    async def test_a_page_that_does_not_read_is_closed_and_others_are_not(
        self,
        running: Trial,
        session: aiohttp.ClientSession,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(try_page, "MAX_QUEUE", 20)
        origin = f"http://127.0.0.1:{running.port}"
        slow = await _connect(running, session, origin)
        quick = await _connect(running, session, origin)
        sent = 400  # 24 MB: more than the kernel keeps for a reader
        for _ in range(sent):
            running.door.sip("sent", "OPTIONS sip:a SIP/2.0", "1 OPTIONS", 1.0, "x" * 60000)
            while (await quick.receive_json())["kind"] != "sip":
                pass
        received = [message async for message in slow]
        assert 0 < len(received) < sent
        assert not quick.closed
        await quick.close()


async def _connect(
    running: Trial, session: aiohttp.ClientSession, origin: str | None
) -> "aiohttp.ClientWebSocketResponse[bool]":
    headers = {"Cookie": f"doorstation-{running.port}={TOKEN}"}
    if origin is not None:
        headers["Origin"] = origin
    return await session.ws_connect(f"http://127.0.0.1:{running.port}/socket", headers=headers)
