"""The control socket: who gets in, what goes over it, and what a bad client can do."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from doorstation.errors import DoorstationError, TransportError
from doorstation.net import control
from doorstation.net.control import ControlClient, ControlServer
from doorstation.net.control_client import Refused, call, follow

from tests.support.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "door.sock")


async def answer(command: str, args: dict[str, object]) -> object:
    """A small station."""
    match command:
        case "press":
            return {"pressed": args["name"]}
        case "reject":
            raise DoorstationError("there is no call to reject")
        case "break":
            raise ZeroDivisionError
        case "wait":
            await asyncio.Event().wait()
    return None


async def raw(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(path)


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes
) -> dict[str, object]:
    writer.write(line + b"\n")
    reply = json.loads(await reader.readline())
    assert isinstance(reply, dict)
    return reply


# -- requests


async def test_a_request_is_answered_with_its_id_and_result(path: str) -> None:
    async with ControlServer(path, answer):
        reader, writer = await raw(path)
        line = b'{"id": 7, "command": "press", "args": {"name": "call"}}'
        assert await ask(reader, writer, line) == {
            "id": 7,
            "ok": True,
            "result": {"pressed": "call"},
        }
        writer.close()


async def test_pipelined_requests_are_answered_in_order(path: str) -> None:
    async with ControlServer(path, answer):
        reader, writer = await raw(path)
        for number in range(50):
            writer.write(b'{"id":%d,"command":"status"}\n' % number)
        for number in range(50):
            assert json.loads(await reader.readline())["id"] == number
        writer.close()


async def test_a_refusal_carries_the_stations_words(path: str) -> None:
    async with ControlServer(path, answer), ControlClient(path) as client:
        with pytest.raises(Refused, match="there is no call to reject"):
            await client.request("reject")
        assert await client.request("press", {"name": "call"}) == {"pressed": "call"}


async def test_a_fault_of_ours_rises_from_run(path: str) -> None:
    async with ControlServer(path, answer) as server, ControlClient(path) as client:
        with pytest.raises(Refused, match="fault of the station"):
            await client.request("break")
        with pytest.raises(ZeroDivisionError):
            await server.run()


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"[]",
        b'{"id": 1}',
        b'{"id": 1, "command": 5}',
        b'{"id": 1, "command": "press", "args": []}',
        b'{"command": "\xff"}',
        b"[" * 60_000,
        b'{"command": "status", "args": {"a": ' + b"[" * 60_000,
        b"",
    ],
)
async def test_a_garbage_line_is_refused_and_the_next_one_served(path: str, line: bytes) -> None:
    async with ControlServer(path, answer):
        reader, writer = await raw(path)
        reply = await ask(reader, writer, line)
        assert (reply["id"], reply["ok"]) == (None, False)
        assert str(reply["error"]).startswith("not a request: ")
        assert (await ask(reader, writer, b'{"id": 2, "command": "status"}'))["ok"] is True
        writer.close()


async def test_an_endless_line_is_refused_and_the_connection_closed(path: str) -> None:
    async with ControlServer(path, answer):
        reader, writer = await raw(path)
        writer.write(b"x" * 200_000)
        assert b"longer than 65536 bytes" in await reader.readline()
        assert await closed(reader)
        writer.close()


async def closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def test_a_client_that_leaves_in_the_middle_harms_nobody(path: str) -> None:
    async with ControlServer(path, answer):
        _, writer = await raw(path)
        writer.write(b'{"id":1,"command":"status"}\n{"id":2,"comm')
        writer.transport.abort()
        async with ControlClient(path) as client:
            assert await client.request("status") is None


async def test_only_so_many_clients_at_a_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_MOST_CLIENTS", 2)
    async with ControlServer(path, answer):
        async with ControlClient(path) as first, ControlClient(path) as second:
            await first.request("status")
            await second.request("status")
            with pytest.raises(Refused, match="2 clients are connected already"):
                await asyncio.to_thread(call, path, "status")
        # Places fall free as clients leave.
        async with asyncio.timeout(10):
            while True:
                try:
                    await asyncio.to_thread(call, path, "status")
                    break
                except Refused:
                    continue


# -- who gets in


async def test_only_the_owner_can_open_the_socket(path: str) -> None:
    before = os.umask(0)
    try:
        async with ControlServer(path, answer):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    finally:
        os.umask(before)
    assert not os.path.exists(path)


async def test_another_user_is_turned_away_whatever_the_files_mode(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen from the server: the one who connects is neither root nor the station's user.
    monkeypatch.setattr(control, "_CREDENTIALS", _Stranger())
    async with ControlServer(path, answer):
        with pytest.raises(Refused, match="only root and the station's own user"):
            await asyncio.to_thread(call, path, "status")


class _Stranger:
    size = 12

    def unpack(self, data: bytes) -> tuple[int, int, int]:
        return 1, os.geteuid() + 12345, 1


async def test_a_socket_left_by_a_killed_station_is_replaced(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    async with ControlServer(path, answer), ControlClient(path) as client:
        assert await client.request("status") is None


async def test_a_socket_in_use_is_left_alone(path: str) -> None:
    async with ControlServer(path, answer):
        with pytest.raises(TransportError, match="another station is listening"):
            async with ControlServer(path, answer):
                pass
        async with ControlClient(path) as client:
            assert await client.request("status") is None


async def test_the_socket_of_a_station_that_took_over_is_not_removed(path: str) -> None:
    async with ControlServer(path, answer) as before:
        os.unlink(path)
        async with ControlServer(path, answer):
            await before.__aexit__()
            async with ControlClient(path) as client:
                assert await client.request("status") is None


async def test_a_file_of_that_name_is_never_removed(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_text("precious")
    with pytest.raises(TransportError, match="something else of this name"):
        async with ControlServer(path, answer):
            pass
    assert Path(path).read_text() == "precious"


async def test_a_path_too_long_is_an_error_of_the_world(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="too long"):
        async with ControlServer(str(tmp_path / ("x" * 150)), answer):
            pass


# -- events


async def test_a_subscriber_gets_the_kinds_it_asked_for(path: str) -> None:
    async with ControlServer(path, answer) as server, ControlClient(path) as client:
        assert not server.wanted("record")
        server.publish("record", {"text": "before anybody listened"})
        events = client.events(["record", "audio:speaker"])
        first = asyncio.ensure_future(anext(events))
        await until(lambda: server.wanted("record"))
        assert not server.wanted("sip")
        server.publish("sip", {"text": "not asked for"})
        server.publish("record", {"text": "pressed", "at": 1.5})
        server.publish("audio:speaker", {"pcm": b"\x01\x02"})
        assert await first == {"kind": "record", "text": "pressed", "at": 1.5}
        assert await anext(events) == {"kind": "audio:speaker", "pcm": "AQI="}
        assert await client.request("press", {"name": "x"}) == {"pressed": "x"}


async def test_nothing_is_wanted_after_the_subscriber_left(path: str) -> None:
    async with ControlServer(path, answer) as server:
        async with ControlClient(path) as client:
            await client.request("events", {"kinds": ["levels"]})
            assert server.wanted("levels")
        await until(lambda: not server.wanted("levels"))


@pytest.mark.parametrize("kinds", [None, "record", [1], ["recrod"]])
async def test_wrong_kinds_are_refused(path: str, kinds: object) -> None:
    async with ControlServer(path, answer), ControlClient(path) as client:
        with pytest.raises(Refused, match="kind"):
            await client.request("events", {"kinds": kinds})


async def test_a_slow_subscriber_loses_the_oldest_and_is_told_how_many(path: str) -> None:
    async with ControlServer(path, answer) as server:
        reader, writer = await raw(path)
        reply = await ask(
            reader, writer, b'{"id": 1, "command": "events", "args": {"kinds": ["sip"]}}'
        )
        assert reply["ok"] is True
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        total = 3000
        for number in range(total):
            server.publish("sip", {"number": number, "text": "x" * 1000})
            if number % 50 == 0:
                await asyncio.sleep(0)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        lost = received = 0
        expected = 0
        while expected < total:
            event = json.loads(await reader.readline())["event"]
            if event["kind"] == "gap":
                lost += event["lost"]
                expected += event["lost"]
                continue
            assert event["number"] == expected
            received += 1
            expected += 1
        assert lost > 0
        assert lost + received == total
        writer.close()


async def test_who_follows_and_is_busy_loses_the_oldest_and_is_told_how_many(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ControlClient, "_MOST_EVENTS", 10)
    async with ControlServer(path, answer) as server, ControlClient(path) as client:
        events = client.events(["sip"])
        first = asyncio.ensure_future(anext(events))
        await until(lambda: server.wanted("sip"))
        for number in range(31):
            server.publish("sip", {"number": number})
            if number == 0:
                assert (await first)["number"] == 0
        await until(lambda: client._lost == 20)
        assert await anext(events) == {"kind": "gap", "lost": 20}
        assert [(await anext(events))["number"] for _ in range(10)] == list(range(21, 31))


async def test_a_slow_subscriber_never_delays_another_client(path: str) -> None:
    async with ControlServer(path, answer) as server, ControlClient(path) as client:
        reader, writer = await raw(path)
        await ask(reader, writer, b'{"command": "events", "args": {"kinds": ["sip"]}}')
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(2000):
            server.publish("sip", {"text": "x" * 1000})
        assert await client.request("status") is None
        writer.transport.abort()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 10])
async def test_closing_the_station_ends_waiting_clients(path: str, turns: int) -> None:
    async with ControlServer(path, answer) as server:
        client = ControlClient(path)
        await client.__aenter__()
        waiting = asyncio.ensure_future(client.request("wait"))
        events = client.events(["sip"])
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.__aexit__()
        with pytest.raises(TransportError):
            await waiting
        with pytest.raises(TransportError):
            await anext(events)
        await client.__aexit__()


async def test_a_request_has_a_time_limit(path: str) -> None:
    async with ControlServer(path, answer), ControlClient(path) as client:
        with pytest.raises(TransportError, match="no answer to wait within"):
            await client.request("wait", within=0.05)


async def test_a_subscriber_that_never_reads_does_not_hold_up_the_end(path: str) -> None:
    async with ControlServer(path, answer) as server:
        reader, writer = await raw(path)
        await ask(reader, writer, b'{"command": "events", "args": {"kinds": ["sip"]}}')
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(2000):
            server.publish("sip", {"text": "x" * 1000})
            await asyncio.sleep(0)
    writer.transport.abort()


# -- the client of the command line


async def test_the_plain_client_asks_and_follows(path: str) -> None:
    async with ControlServer(path, answer) as server:
        assert await asyncio.to_thread(call, path, "press", {"name": "call"}) == {"pressed": "call"}
        with pytest.raises(Refused, match="no call to reject"):
            await asyncio.to_thread(call, path, "reject")
        with pytest.raises(TransportError, match=r"did not answer within 0\.05"):
            await asyncio.to_thread(call, path, "wait", {}, 0.05)
        with pytest.raises(Refused, match="no events of kind 'nonsense'"):
            await asyncio.to_thread(next, follow(path, ["nonsense"]))
        followed = follow(path, ["record"])
        first = asyncio.create_task(asyncio.to_thread(next, followed))
        await until(lambda: server.wanted("record"))
        server.publish("record", {"text": "opened"})
        assert await first == {"kind": "record", "text": "opened"}
        rest = asyncio.create_task(asyncio.to_thread(list, followed))
    assert await rest == []


def test_no_station_is_said_so(path: str) -> None:
    with pytest.raises(TransportError, match=f"no station is running at {path}"):
        call(path, "status")


def test_the_plain_client_needs_no_asyncio() -> None:
    code = (
        "import sys, doorstation.net.control_client;"
        "print([name for name in ('asyncio', 'msgspec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
