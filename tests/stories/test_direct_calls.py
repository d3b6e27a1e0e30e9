"""Calls without a registrar: phones known by their address, over IPv4 and IPv6, and strangers."""

import re
import socket
import subprocess
from pathlib import Path

import pytest
from doorstation.net.control_client import Refused

from tests.stories.conftest import USERS
from tests.stories.sound import both_hear
from tests.support.lab import Lab, eventually
from tests.support.peers import Kamailio, baresip, sipp
from tests.support.rtp import RtpPacket, format_rtp
from tests.support.station import CODE, account, station
from tests.support.tls import Authority


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_visitor_rings_a_phone_by_its_address_both_talk_and_the_code_opens(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path, ipv6: bool
) -> None:
    address = town.address(ipv6)
    with baresip(town, tmp_path / "indoor", "indoor", source=resident, address=address) as phone:
        settings = {
            "peers.indoor.uri": phone.uri,
            "buttons.call.steps": [{"ring": ["indoor"]}],
            "audio.microphone": visitor,
        }
        own = town.station6 if ipv6 else town.station
        with station(town, tmp_path / "door", settings, address=own) as door:
            door.press()
            assert door.wait_call("connected")["codec"] == "PCMA"
            phone.wait_event("CALL_ESTABLISHED")
            both_hear(door, phone, visitor, resident)
            phone.send_digits(CODE)
            door.wait_event("release")
            phone.hangup()
            door.wait_idle()


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_a_known_phone_calls_is_answered_at_once_and_opens(
    town: Lab, tmp_path: Path, visitor: Path, resident: Path, ipv6: bool
) -> None:
    address = town.address(ipv6)
    with baresip(town, tmp_path / "indoor", "indoor", source=resident, address=address) as phone:
        settings = {
            "peers.indoor.uri": phone.uri,
            "peers.indoor.auto_answer": True,
            "audio.microphone": visitor,
        }
        own = town.station6 if ipv6 else town.station
        with station(town, tmp_path / "door", settings, address=own) as door:
            phone.dial(door.uri())
            phone.wait_event("CALL_ESTABLISHED")
            assert door.wait_event("call_in")["let_in_by"] == "peer-address"
            both_hear(door, phone, visitor, resident)
            phone.send_digits(CODE)
            door.wait_event("release")
            door.command("hangup")
            phone.wait_event("CALL_CLOSED")
            door.wait_idle()


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_phone_at_a_link_local_address_is_heard_and_hung_up_on(
    network: Lab, tmp_path: Path, everywhere: bool
) -> None:
    """No way leads there but by its link, which no message ever names (RFC 4007 §11.2)."""
    link = network.interface
    show = ("ip", "-6", "addr", "show", "dev", link, "-tentative")

    def known() -> list[str]:
        shown = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        return re.findall(r"inet6 (fe80:\S+)/64", shown)

    [address] = eventually(known, "a link-local address")
    scope = socket.if_nametoindex(link)
    told: list[str] = []
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sip,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as rtp,
    ):
        for each, port in ((sip, 5070), (rtp, 6000)):
            each.settimeout(5)
            each.bind((address, port, 0, scope))

        def send(method: str, to_tag: str, body: str) -> None:
            lines = (
                f"{method} sip:door@[{address}] SIP/2.0",
                f"Via: SIP/2.0/UDP [{address}]:5070;branch=z9hG4bK{method};rport",
                "Max-Forwards: 70",
                f"From: <sip:indoor@[{address}]>;tag=1",
                f"To: <sip:door@[{address}]>{to_tag}",
                "Call-ID: 1",
                f"CSeq: 1 {method}",
                f"Contact: <sip:indoor@[{address}]:5070>",
                "Content-Type: application/sdp",
                f"Content-Length: {len(body)}",
            )
            text = "\r\n".join((*lines, "", body))
            sip.sendto(text.encode(), (address, 5060, 0, scope))

        def hears(start: str) -> str:
            while not (told and told[-1].startswith(start)):
                told.append(sip.recv(65535).decode())
            return told[-1]

        settings = {"peers.indoor.uri": f"sip:indoor@[{address}]", "peers.indoor.auto_answer": True}
        own = "::" if everywhere else f"{address}%{link}"
        with station(network, tmp_path / "door", settings, address=own) as door:
            where = f"IN IP6 {address}"
            sdp = f"v=0\r\no=- 1 1 {where}\r\ns=-\r\nc={where}\r\nt=0 0\r\n"
            send("INVITE", "", sdp + "m=audio 6000 RTP/AVP 8\r\n")
            tag = re.findall(r"^To:.*(;tag=[^;\s]+)", hears("SIP/2.0 200"), re.M)[0]
            send("ACK", tag, "")
            assert len(rtp.recv(2048)) == 172
            door.command("hangup")
            hears("BYE")
    assert not [text for text in told if "%" in text]


def test_a_call_comes_by_tls_to_the_door_s_own_certificate(network: Lab, tmp_path: Path) -> None:
    """In a network of its own: the phone's connections come from the first address there is."""
    files = Authority(tmp_path).issue("door.example.test", network.station)
    with baresip(network, tmp_path / "indoor", "indoor", transport="tls") as phone:
        settings = {
            "sip.transports": ["udp", "tcp", "tls"],
            "tls.certificate": files.certificate,
            "tls.key": files.key,
            "peers.indoor.uri": f"sip:indoor@{phone.address}",
            "peers.indoor.auto_answer": True,
        }
        with station(network, tmp_path / "door", settings) as door:
            phone.dial(f"sip:door@{door.address}:5061;transport=tls")
            phone.wait_event("CALL_ESTABLISHED")
            assert door.wait_event("call_in")["let_in_by"] == "peer-address"
            phone.send_digits(CODE)
            door.wait_event("release")
            door.command("hangup")
            phone.wait_event("CALL_CLOSED")
            door.wait_idle()


def test_a_stranger_is_refused_and_recorded(town: Lab, tmp_path: Path) -> None:
    settings = {"peers.indoor.uri": f"sip:indoor@{town.address()}"}
    with station(town, tmp_path / "door", settings) as door:
        target = f"{door.address}:5060"
        keys = {"status": "403"}
        with sipp(town, tmp_path / "sipp", "uac_refused", target=target, keys=keys) as run:
            run.finish()
            event = door.wait_event("refused")
            assert (event["status"], event["rule"]) == (403, "stranger")
            assert event["source"] == run.address
            assert door.calls() == []


@pytest.mark.parametrize("password", [USERS["attic"], "another"])
def test_a_caller_behind_a_proxy_is_let_in_by_its_password_only(
    town: Lab, proxy: Kamailio, tmp_path: Path, password: str
) -> None:
    front = {
        "peers.attic.uri": f"sip:attic@{town.address()}",
        "peers.attic.password": password,
        "peers.attic.auto_answer": True,
    }
    own = {**account(proxy, user="attic"), "sip.port": 5080}
    with station(town, tmp_path / "door", front) as door, station(town, tmp_path, own) as caller:
        proxy.rpc("ul.add", "location", "gate", door.uri(), 3600, 1.0, "0", 0, 0, 0)
        caller.wait_registered()
        caller.command("call", uri=proxy.uri("gate"))
        if password == USERS["attic"]:
            caller.wait_call("connected")
            assert door.wait_event("call_in")["let_in_by"] == "peer-password"
            caller.command("hangup")
        else:
            assert caller.wait_event("target_failed")["status"] == 401
            assert door.events("call_in") == []
        door.wait_idle()
        caller.wait_idle()
        proxy.forget("gate")


@pytest.mark.parametrize("password", ["Wohnung", "another"])
def test_baresip_is_let_in_by_its_password_where_md5_alone_is_offered(
    town: Lab, tmp_path: Path, password: str
) -> None:
    """1.0.0 ends the call as soon as a challenge offers SHA-256, first or second or alone."""
    front = {
        "peers.attic.uri": "sip:attic@192.0.2.1",
        "peers.attic.password": "Wohnung",
        "peers.attic.digest": ["md5"],
        "peers.attic.auto_answer": True,
    }
    with (
        station(town, tmp_path / "door", front) as door,
        baresip(town, tmp_path / "attic", "attic", password=password) as phone,
    ):
        phone.dial(door.uri())
        if password == "Wohnung":
            phone.wait_event("CALL_ESTABLISHED")
            assert door.wait_event("call_in")["let_in_by"] == "peer-password"
            phone.send_digits(CODE)
            door.wait_event("release")
            phone.hangup()
        else:
            phone.wait_event("CALL_CLOSED")
            assert door.wait_event("refused")["rule"] == "wrong-password"
            assert door.events("call_in") == []
        door.wait_idle()


def test_the_first_of_two_phones_that_answers_has_the_call(town: Lab, tmp_path: Path) -> None:
    with (
        baresip(town, tmp_path / "indoor", "indoor", auto_answer=False) as indoor,
        baresip(town, tmp_path / "attic", "attic", auto_answer=False) as attic,
    ):
        settings = {
            "peers.indoor.uri": indoor.uri,
            "peers.attic.uri": attic.uri,
            "buttons.call.steps": [{"ring": ["indoor", "attic"]}],
        }
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            indoor.wait_event("CALL_INCOMING")
            attic.wait_event("CALL_INCOMING")
            attic.accept()
            attic.wait_event("CALL_ESTABLISHED")
            indoor.wait_event("CALL_CLOSED")
            call = door.wait_call("connected")
            assert call["peer"] == attic.uri
            assert door.wait_event("answered")["peer"] == "attic"
            indoor.dial(door.uri())
            assert "486" in indoor.wait_event("CALL_CLOSED")["param"]


def test_digits_of_a_phone_that_may_not_open_do_nothing(town: Lab, tmp_path: Path) -> None:
    with baresip(town, tmp_path / "indoor", "indoor") as phone:
        settings = {
            "peers.indoor.uri": phone.uri,
            "peers.indoor.may_open": False,
            "buttons.call.steps": [{"ring": ["indoor"]}],
        }
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            phone.wait_event("CALL_ESTABLISHED")
            phone.send_digits(CODE)
            assert door.wait_event("code")["allowed"] is False
            assert door.pulses() == 0


def test_codes_are_locked_out_after_too_many_wrong_ones(town: Lab, tmp_path: Path) -> None:
    with baresip(town, tmp_path / "indoor", "indoor") as phone:
        settings = {
            "peers.indoor.uri": phone.uri,
            "buttons.call.steps": [{"ring": ["indoor"]}],
            "door.wrong_codes": 1,
        }
        with station(town, tmp_path / "door", settings) as door:
            door.press()
            phone.wait_event("CALL_ESTABLISHED")
            phone.send_digits("0000#")
            door.wait_event("lock_out")
            phone.send_digits(f"{CODE}#")
            assert door.wait_event("code")["rule"] == "locked_out"
            assert door.pulses() == 0


def test_only_one_call_at_a_time_is_placed_and_the_owner_is_told(town: Lab, tmp_path: Path) -> None:
    with (
        baresip(town, tmp_path / "indoor", "indoor") as phone,
        station(town, tmp_path / "door", {"peers.indoor.uri": phone.uri}) as door,
    ):
        door.command("call", uri="indoor")
        door.wait_call("connected")
        with pytest.raises(Refused, match="busy"):
            door.command("call", uri="indoor")


def test_a_call_is_ended_while_the_cable_is_pulled_and_the_door_is_free_at_once(
    town: Lab, tmp_path: Path
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor") as phone:
        settings = {"peers.indoor.uri": phone.uri}
        with station(town, tmp_path / "door", settings) as door:
            door.command("call", uri="indoor")
            door.wait_call("connected")
            town.cut()
            try:
                door.command("hangup")
                assert door.status()["door"] == "idle"
            finally:
                town.mend()
            phone.wait_event("CALL_CLOSED", 10)  # the BYE is repeated until it gets there
            door.wait_idle()


def test_digits_that_somebody_else_sends_to_the_door_s_port_open_nothing(
    town: Lab, tmp_path: Path
) -> None:
    with baresip(town, tmp_path / "indoor", "indoor") as phone:
        settings = {"peers.indoor.uri": phone.uri, "buttons.call.steps": [{"ring": ["indoor"]}]}
        with (
            station(town, tmp_path / "door", settings) as door,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as intruder,
        ):
            door.press()
            door.wait_call("connected")
            found = re.search(r"m=audio (\d+) ", door.process.log_text())
            assert found
            intruder.bind((town.station, 0))
            packets = [
                format_rtp(RtpPacket(101, 10 * n, 1600 * n, 0xBAD, bytes([int(digit), 10, 3, 32])))
                for n, digit in enumerate(CODE * 3)
            ]
            for packet in packets:
                intruder.sendto(packet, (door.address, int(found[1])))
            received = door.calls()[0]["statistics"]["received"]
            door.wait_status(
                lambda status: status["calls"][0]["statistics"]["received"] > received + 25,
                "the phone is still heard",
            )
            assert door.new_events("code") == []
            assert door.pulses() == 0
            phone.send_digits(CODE)
            door.wait_event("release")
