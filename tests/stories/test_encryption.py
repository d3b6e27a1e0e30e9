"""Encrypted sound with a real phone: who offers, who answers, what is heard, what is shown."""

import asyncio
import base64
import json
import re
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from doorstation.media import dtls
from doorstation.media.g711 import encode_pcma
from doorstation.media.srtp import Keys

from tests.stories.conftest import USERS
from tests.stories.sound import both_hear, door_hears
from tests.support.lab import Lab, Process, eventually
from tests.support.peers import Baresip, Kamailio, baresip, sipp
from tests.support.sounds import read_pcm
from tests.support.station import CODE, Station, account, station
from tests.support.two_stations import CALL_BUTTON, two_stations

CM = "AES_CM_128_HMAC_SHA1_80"


def with_phone(phone: Baresip, visitor: Path, **more: Any) -> dict[str, Any]:
    return {
        "peers.indoor.uri": phone.uri,
        "peers.indoor.auto_answer": True,
        "buttons.call.steps": [{"ring": ["indoor"]}],
        "audio.microphone": visitor,
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def protected(door: Station, suite: str, keys: str, readable: bool) -> None:
    """The call's encryption as the status and the event log tell it, and that packets pass."""
    shown: dict[str, Any] = {"suite": suite, "keys": keys, "keys_readable": readable}
    door.wait_event("encryption", **shown)
    assert door.wait_call("connected")["encryption"] == shown
    door.wait_status(
        lambda status: status["calls"][0]["statistics"]["encryption"] == suite, "packets are SRTP"
    )


def no_key_is_shown(door: Station, phone: Baresip) -> None:
    """What the phone's log, or the other side of the wire, knows of keys is in no log of ours."""
    log = door.process.log_text()
    assert "crypto:" in log
    for line in log.splitlines():
        if "inline:" in line:
            assert line.rstrip().endswith("inline:***"), line
    assert "inline:" not in door.events_file.read_text()


@pytest.mark.parametrize(
    ("phone_does", "door_does"),
    [("srtp", "optional"), ("srtp-mand", "required"), ("srtp", "required")],
)
def test_a_call_from_the_door_is_encrypted_and_heard_at_both_ends(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path, phone_does: Any, door_does: str
) -> None:
    with baresip(
        town, tmp_path / "indoor", "indoor", source=resident, encryption=phone_does
    ) as phone:
        settings = with_phone(phone, visitor, peers__indoor__srtp=door_does)
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            phone.wait_event("CALL_ESTABLISHED")
            protected(door, CM, "sdes", True)
            both_hear(door, phone, visitor, resident)
            phone.send_digits(f"{CODE}#")
            door.wait_event("release")
            unauthentic = door.calls()[0]["statistics"]["unauthentic"]
            assert unauthentic <= 1, "baresip's first report, before it has read our keys"
            phone.hangup()
            door.wait_idle()
            ended = door.wait_event("call_statistics")
            assert ended["encryption"] == CM
            # The second is its RTCP BYE, where that is read before the SIP BYE: baresip gives its
            # encryption up first, and then sends it plain.
            assert ended["unauthentic"] <= 2
            door.wait_log("keys of encrypted sound travel readable in SIP over UDP")
            no_key_is_shown(door, phone)


@pytest.mark.parametrize(
    ("phone_does", "door_does"),
    [("srtp", ""), ("srtp-mand", ""), ("srtp-mandf", "optional"), ("srtp-mand", "required")],
)
def test_a_call_to_the_door_is_encrypted_and_heard_at_both_ends(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path, phone_does: Any, door_does: str
) -> None:
    with baresip(
        town, tmp_path / "indoor", "indoor", source=resident, encryption=phone_does
    ) as phone:
        settings = with_phone(phone, visitor)
        if door_does:
            settings["peers.indoor.srtp"] = door_does
        with station(town, tmp_path / "door", settings) as door:
            phone.dial(door.uri())
            phone.wait_event("CALL_ESTABLISHED")
            door.wait_event("encryption")
            call = door.wait_call("connected")
            assert call["encryption"]["keys"] == "sdes"
            both_hear(door, phone, visitor, resident)


def test_hold_and_resume_keep_the_keys(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path
) -> None:
    with baresip(
        town, tmp_path / "indoor", "indoor", source=resident, encryption="srtp-mand"
    ) as phone:
        settings = with_phone(phone, visitor, peers__indoor__srtp="required")
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            phone.wait_event("CALL_ESTABLISHED")
            protected(door, CM, "sdes", True)
            both_hear(door, phone, visitor, resident)
            door.command("hold")
            door.wait_call("held")
            door.command("resume")
            door.wait_call("connected")
            phone.hold()
            door.wait_event("hold", by_peer=True)
            phone.resume()
            door.wait_call("connected")
            # Version 1.0.0 does not play again what it receives after a hold: its log must do.
            door_hears(door, resident)
            assert "failed to decrypt" not in phone.log_text()
            assert len(door.events("encryption")) == 1


def test_a_phone_that_brings_another_key_in_mid_call_is_heard_on_and_who_has_the_old_one_is_not(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path
) -> None:
    """Calls by SIPp, sound by FFmpeg: no phone here renews its keys in a call."""
    phone = town.address()
    first, last = (base64.b64encode(bytes([n]) * 30).decode() for n in (1, 2))
    settings = {
        "peers.indoor.uri": f"sip:sipp@{phone}",
        "peers.indoor.auto_answer": True,
        "peers.indoor.srtp": "required",
    }
    with station(town, tmp_path / "door", settings) as door:
        flow = sipp(
            town,
            tmp_path / "flow",
            "uac_rekey",
            target=f"{door.address}:5060",
            address=phone,
            pause_ms=7000,
            keys={"key": first, "next_key": last},
        )

        def speaking(key: str, said: Path) -> AbstractContextManager[Process]:
            port = eventually(
                lambda: [
                    number
                    for number in re.findall(r"m=audio (\d+) RTP/SAVP", calling.messages())
                    if number != "16000"
                ],
                "the door's port in what SIPp has written",
            )[0]
            to = f"srtp://{door.address}:{port}"
            raw = tmp_path / f"{said.stem}.al"
            raw.write_bytes(encode_pcma(read_pcm(said)))
            sound = ("-re", "-f", "alaw", "-ar", "8000", "-ac", "1", "-i", str(raw), "-c:a", "copy")
            protected = ("-srtp_out_suite", CM, "-srtp_out_params", key)
            rtp = ("-f", "rtp", "-payload_type", "8", *protected, to)
            command = ("ffmpeg", "-v", "error", "-nostdin", *sound, *rtp)
            return town.program(*command, directory=tmp_path, log="ffmpeg.log")

        def more(count: str, packets: int) -> None:
            before = door.calls()[0]["statistics"][count]
            door.wait_status(
                lambda status: status["calls"][0]["statistics"][count] >= before + packets,
                f"{packets} more packets {count}",
            )

        with flow as calling:
            door.wait_call("connected")
            with speaking(first, resident):
                door_hears(door, resident)
                door.wait_log("CSeq: 2 ACK")
            with speaking(last, visitor):
                more("received", 25)
                door_hears(door, visitor)
            with speaking(first, resident):
                more("unauthentic", 10)
            calling.finish()
        ours = re.findall(r"inline:(\S+)", calling.messages())
        assert len(set(ours)) == 4, "two of the caller, and two of the door"


def test_keys_that_travel_by_tls_are_not_complained_of(
    town: Lab, proxy: Kamailio, tmp_path: Path, visitor: Path, resident: Path
) -> None:
    """Offered without any setting, where the signalling keeps them secret."""
    with baresip(
        town,
        tmp_path / "indoor",
        "indoor",
        registrar=proxy,
        transport="tls",
        source=resident,
        encryption="srtp",
    ) as phone:
        settings = {
            **account(proxy, "tls"),
            "buttons.call.steps": [{"ring": [proxy.uri("indoor")]}],
            "audio.microphone": visitor,
        }
        with station(town, tmp_path / "door", settings) as door:
            door.wait_registered()
            door.press()
            phone.wait_event("CALL_ESTABLISHED")
            protected(door, CM, "sdes", False)
            both_hear(door, phone, visitor, resident)
            assert "travel readable" not in door.process.log_text()
            assert f"PCMA  encrypted by {CM}, keys by SDES  " in door.ctl("status").stdout
            no_key_is_shown(door, phone)
    assert USERS["indoor"] not in door.process.log_text()


def test_a_phone_without_encryption_is_called_plain_where_it_is_optional(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor", source=resident) as phone:
        settings = with_phone(phone, visitor, peers__indoor__srtp="optional")
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            phone.wait_event("CALL_ESTABLISHED")
            assert door.wait_call("connected")["encryption"] is None
            assert "PCMA  not encrypted  " in door.ctl("status").stdout
            both_hear(door, phone, visitor, resident)


def test_a_phone_without_encryption_is_not_talked_to_where_it_is_required(
    town: Lab, tmp_path: Path, visitor: Path
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor") as phone:
        settings = with_phone(phone, visitor, peers__indoor__srtp="required")
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            failed = door.wait_event("target_failed")
            assert failed["status"] == 488
            phone.wait_event("CALL_CLOSED")
            door.wait_idle()
            phone.dial(door.uri())
            refused = door.wait_event("refused")
            assert refused["status"] == 488
            assert "not encrypted" in refused["rule"]
            assert "488" in phone.wait_event("CALL_CLOSED")["param"]


@pytest.mark.parametrize(
    ("mux", "incoming"), [(True, False), (False, False), (True, True), (False, True)]
)
def test_a_call_whose_keys_come_by_dtls_is_heard_at_both_ends(
    town: Lab,
    tmp_path: Path,
    visitor: Path,
    resident: Path,
    mux: bool,
    incoming: bool,
) -> None:
    with baresip(
        town, tmp_path / "indoor", "indoor", source=resident, encryption="dtls_srtp", rtcp_mux=mux
    ) as phone:
        settings = with_phone(phone, visitor, peers__indoor__srtp="required")
        settings["peers.indoor.srtp_keys"] = ["dtls"]
        with station(town, tmp_path / "door", settings) as door:
            if incoming:
                phone.dial(door.uri())
            else:
                door.press()
            phone.wait_event("CALL_ESTABLISHED")
            door.wait_event("encryption", keys="dtls", keys_readable=False)
            both_hear(door, phone, visitor, resident)
            phone.send_digits(f"{CODE}#")
            door.wait_event("release")
            assert door.calls()[0]["encryption"]["keys"] == "dtls"
            assert "inline:" not in door.process.log_text()


# Sends RTP as if it were the phone: its address, its port, its SSRC. Who sits in the same network
# can do that.
FORGER = """
import socket, struct, sys
source, source_port, to, to_port, ssrc, code = sys.argv[1:]
link = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
link.bind((source, 0))
sequence = 60000
for turn, digit in enumerate(code):
    for n in range(5):
        event = struct.pack("!BBH", int(digit), 0x8A if n > 1 else 0x0A, 800)
        rtp = struct.pack("!BBHII", 0x80, 101, sequence, 5000 + 2000 * turn, int(ssrc)) + event
        sequence += 1
        udp = struct.pack("!HHHH", int(source_port), int(to_port), 8 + len(rtp), 0)
        link.sendto(udp + rtp, (to, 0))
"""


@pytest.mark.parametrize("encrypted", [False, True])
def test_key_presses_forged_with_the_phones_address_open_an_unencrypted_calls_door_only(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path, encrypted: bool
) -> None:
    """The plain call shows that the forgery is a good one."""
    with baresip(
        town,
        tmp_path / "indoor",
        "indoor",
        source=resident,
        encryption="srtp-mand" if encrypted else "",
    ) as phone:
        settings = with_phone(phone, visitor)
        settings["peers.indoor.srtp"] = "required" if encrypted else "off"
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            phone.wait_event("CALL_ESTABLISHED")
            door.wait_call("connected")
            both_hear(door, phone, visitor, resident)
            statistics = door.calls()[0]["statistics"]
            phone_port = statistics["remote"].rpartition(":")[2]
            log = door.process.log_text()
            [door_port] = set(re.findall(r"m=audio (\d+) ", log.partition("< UDP")[0]))
            [ssrc] = set(re.findall(r"a=ssrc:(\d+) ", log))
            forge = (sys.executable, "-c", FORGER, phone.address, phone_port)
            town.run(*forge, door.address, door_port, ssrc, CODE)
            if encrypted:
                door.wait_status(
                    lambda status: (
                        status["calls"][0]["statistics"]["unauthentic"]
                        >= statistics["unauthentic"] + 5 * len(CODE)
                    ),
                    "the forged packets have come, and were counted",
                )
                assert door.pulses() == 0
                assert door.events("digit") == []
                phone.send_digits(f"{CODE}#")
            door.wait_event("release")
            assert door.pulses() == 1


async def test_a_call_whose_certificate_is_not_the_signalled_one_is_ended_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "sha-256 " + ":".join(["AB"] * 32)
    monkeypatch.setattr(dtls, "fingerprint", lambda: wrong)
    srtp = '[audio]\nrate = 8000\nsrtp = "required"\nsrtp_keys = ["dtls"]\n'
    async with two_stations(tmp_path, CALL_BUTTON + srtp, srtp) as (door, phone):
        door.press()
        await phone.until("ringing")
        await phone.ask("answer")
        await door.until("idle")
        await phone.until("idle")
        failed = await door.events("encryption_failed") + await phone.events("encryption_failed")
        assert "not the one whose fingerprint was signalled" in str(failed[0]["why"])
        assert await door.events("encryption") == await phone.events("encryption") == []


@pytest.mark.parametrize(
    ("there", "shown_as", "way"),
    # A connection leaves from the machine's first address, which then the SDP names.
    [("127.0.0.22", "127.0.0.21", ""), ("127.0.0.1", "127.0.0.1", ";transport=tcp")],
)
def test_doors_on_addresses_of_their_own_agree_on_keys_on_a_machine_that_has_both(
    there: str, shown_as: str, way: str, town: Lab, tmp_path: Path
) -> None:
    here = "127.0.0.21"
    settings = {"audio.srtp": "required", "audio.srtp_keys": ["dtls"]}
    one = {"peers.other.uri": f"sip:{there}{way}", "buttons.call.steps": [{"ring": ["other"]}]}
    other = {"peers.other.uri": f"sip:{shown_as}", "peers.other.auto_answer": True}
    with (
        station(town, tmp_path / "there", {**settings, **other}, address=there) as phone,
        station(town, tmp_path / "here", {**settings, **one}, address=here) as door,
    ):
        door.press()
        door.wait_event("encryption", keys="dtls")
        phone.wait_event("encryption", keys="dtls")


async def test_two_doors_talk_with_keys_of_their_own(tmp_path: Path) -> None:
    srtp = '[audio]\nrate = 8000\nsrtp = "required"\nsrtp_keys = ["dtls"]\n'
    async with two_stations(tmp_path, CALL_BUTTON + srtp, srtp) as (door, phone):
        door.press()
        await phone.until("ringing")
        await phone.ask("answer")
        await door.until("talking")
        while not (await door.events("encryption") and await phone.events("encryption")):
            await door.listen(0.02)
        assert (await door.events("encryption"))[0]["suite"] == "AEAD_AES_256_GCM"


async def test_no_key_is_shown_to_who_follows_the_door_or_asks_for_its_status(
    tmp_path: Path,
) -> None:
    srtp = '[audio]\nrate = 8000\nsrtp = "required"\n'
    async with two_stations(tmp_path, CALL_BUTTON + srtp, srtp) as (door, phone):
        shown: list[str] = []

        async def follow() -> None:
            async for event in door.control.events(["sip", "record", "state"]):
                shown.append(json.dumps(event))

        following = asyncio.create_task(follow())
        await door.listen(0.1)
        door.press()
        await phone.until("ringing")
        await phone.ask("answer")
        await door.until("talking")
        session = door.station._sound.session
        assert session is not None
        assert session._agreed is not None
        keys = session._agreed.protection
        assert isinstance(keys, Keys)
        shown.append(json.dumps(await door.ask("status")))
        await door.ask("hangup")
        await door.until("idle")
        following.cancel()
        everything = "".join([*shown, json.dumps(await door.ask("recent"))])
        assert "inline:***" in everything
        for key in (keys.send, keys.receive):
            assert base64.b64encode(key).decode() not in everything
