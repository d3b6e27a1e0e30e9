"""The peers by themselves: what a failing story may rely on before it blames the station."""

import hashlib
import re
import socket
from pathlib import Path
from typing import Literal

import pytest

from tests.support.lab import Lab, eventually, lab
from tests.support.peers import Kamailio, baresip, kamailio, sipp, write_tone

USERS = {"door": "door-secret", "indoor": "indoor-secret"}


def test_nothing_of_a_lab_outlives_it(tmp_path: Path) -> None:
    with lab() as network:
        assert network.interface in _interfaces()
        with network.program("sleep", "600", directory=tmp_path, log="log") as process:
            pass
        assert process.returncode is not None
    eventually(lambda: network.interface not in _interfaces(), "the cable is gone")


def test_a_killed_registrar_leaves_its_port_to_the_next(network: Lab, tmp_path: Path) -> None:
    with kamailio(network, tmp_path, USERS) as first:
        first.stop()
        with kamailio(network, tmp_path, USERS, address=first.address) as second:
            assert second.contacts("door") == []


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_phone_calls_another_through_the_proxy_and_sends_a_digit(
    network: Lab, tmp_path: Path, transport: Literal["udp", "tcp", "tls"]
) -> None:
    with (
        kamailio(network, tmp_path / "proxy", USERS) as proxy,
        baresip(
            network, tmp_path / "indoor", "indoor", registrar=proxy, transport=transport
        ) as indoor,
        baresip(network, tmp_path / "door", "door", registrar=proxy, transport=transport) as door,
    ):
        assert proxy.wait_registered("indoor").startswith("sip:indoor-")
        door.dial(indoor.uri)
        indoor.wait_event("CALL_ESTABLISHED")
        door.wait_event("CALL_ESTABLISHED")
        door.send_digits("5")
        indoor.wait_event("CALL_DTMF_START", param="5")
        assert indoor.digits() == "5"
        door.hangup()
        indoor.wait_event("CALL_CLOSED")


def test_a_phone_without_registrar_rings_and_is_answered_by_hand(
    network: Lab, tmp_path: Path
) -> None:
    tone = write_tone(tmp_path / "said.wav", 500, 60)
    with (
        baresip(network, tmp_path / "indoor", "indoor", auto_answer=False) as indoor,
        baresip(network, tmp_path / "door", "door", source=tone) as door,
    ):
        door.dial(indoor.uri)
        indoor.wait_event("CALL_INCOMING")
        door.wait_event("CALL_RINGING")
        indoor.accept()
        door.wait_event("CALL_ESTABLISHED")
        eventually(lambda: indoor.heard().stat().st_size > 8000, "half a second is heard")
        indoor.hangup()
        door.wait_event("CALL_CLOSED")


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_the_registrar_challenges_with_the_algorithm_asked_for(
    network: Lab, tmp_path: Path, algorithm: Literal["MD5", "SHA-256"]
) -> None:
    with kamailio(network, tmp_path, USERS, algorithm=algorithm) as proxy:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(5)
            link.connect((proxy.address, 5060))
            challenge = _register(link, proxy, 1)
            assert re.search(r"algorithm=([\w-]+)", challenge + " algorithm=MD5")[1] == algorithm  # type: ignore[index]
            nonce = re.search(r'nonce="([^"]+)"', challenge)
            assert nonce
            hashed = hashlib.md5 if algorithm == "MD5" else hashlib.sha256

            def digest(*parts: str) -> str:
                return hashed(":".join(parts).encode()).hexdigest()

            uri = f"sip:{proxy.domain}"
            response = digest(
                digest("door", proxy.domain, "door-secret"),
                nonce[1],
                "00000001",
                "abc",
                "auth",
                digest("REGISTER", uri),
            )
            answer = _register(
                link,
                proxy,
                2,
                f'Authorization: Digest username="door",realm="{proxy.domain}",nonce="{nonce[1]}",'
                f'uri="{uri}",algorithm={algorithm},qop=auth,nc=00000001,cnonce="abc",'
                f'response="{response}"\r\n',
            )
        assert answer.startswith("SIP/2.0 200")
        assert len(proxy.contacts("door")) == 1
        proxy.forget("door")
        assert proxy.contacts("door") == []


def _register(link: socket.socket, proxy: Kamailio, number: int, authorization: str = "") -> str:
    here, port = link.getsockname()
    link.send(
        f"REGISTER sip:{proxy.domain} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {here}:{port};branch=z9hG4bK{number};rport\r\n"
        f"From: <{proxy.uri('door')}>;tag=1\r\nTo: <{proxy.uri('door')}>\r\n"
        f"Call-ID: test\r\nCSeq: {number} REGISTER\r\nContact: <sip:door@{here}:{port}>\r\n"
        f"{authorization}Content-Length: 0\r\n\r\n".encode()
    )
    return link.recv(4096).decode()


def test_two_record_routes_on_the_switch(network: Lab, tmp_path: Path) -> None:
    with (
        kamailio(network, tmp_path / "proxy", USERS, record_routes=2) as proxy,
        baresip(network, tmp_path / "indoor", "indoor", registrar=proxy) as indoor,
        baresip(network, tmp_path / "door", "door", registrar=proxy) as door,
    ):
        door.dial(indoor.uri)
        door.wait_event("CALL_ESTABLISHED")
        door.hangup()
        indoor.wait_event("CALL_CLOSED")


@pytest.mark.parametrize("scenario", ["uac_call", "uac_hold", "uac_late_offer", "uac_options"])
def test_sipp_calls_a_phone(network: Lab, tmp_path: Path, scenario: str) -> None:
    with baresip(network, tmp_path / "phone", "indoor") as phone:
        target = f"{phone.address}:5060"
        with sipp(network, tmp_path / "sipp", scenario, target=target, service="indoor") as run:
            run.finish()


def test_sipp_sends_digits_both_ways(network: Lab, tmp_path: Path) -> None:
    with baresip(network, tmp_path / "phone", "indoor") as phone:
        target = f"{phone.address}:5060"
        with sipp(
            network,
            tmp_path / "rtp",
            "uac_dtmf",
            target=target,
            service="indoor",
            keys={"digit": "5"},
        ) as run:
            run.finish()
        phone.wait_event("CALL_DTMF_START", param="5")
        keys = {"digit": "7", "second": "8"}
        with sipp(
            network, tmp_path / "info", "uac_info_dtmf", target=target, service="indoor", keys=keys
        ):
            phone.wait_event("CALL_DTMF_START", param="7")  # the second spelling it does not know


def test_sipp_gives_up_while_it_rings(network: Lab, tmp_path: Path) -> None:
    with baresip(network, tmp_path / "phone", "indoor", auto_answer=False) as phone:
        target = f"{phone.address}:5060"
        with sipp(network, tmp_path / "sipp", "uac_cancel", target=target, service="indoor") as run:
            phone.wait_event("CALL_INCOMING")
            run.finish()
            phone.wait_event("CALL_CLOSED")


@pytest.mark.parametrize(
    ("scenario", "events"),
    [
        ("uas_answer", ["CALL_RINGING", "CALL_ESTABLISHED"]),
        ("uas_early_media", ["CALL_PROGRESS", "CALL_ESTABLISHED"]),
        ("uas_hangup", ["CALL_RINGING", "CALL_ESTABLISHED", "CALL_CLOSED"]),
        ("uas_reject", ["CALL_RINGING", "CALL_CLOSED"]),
        ("uas_ring", ["CALL_RINGING"]),
    ],
)
def test_a_phone_calls_sipp(network: Lab, tmp_path: Path, scenario: str, events: list[str]) -> None:
    with (
        baresip(network, tmp_path / "phone", "door") as phone,
        sipp(network, tmp_path / "sipp", scenario, keys={"status": "486"}) as run,
    ):
        phone.dial(f"sip:indoor@{run.address}:{run.port}")
        for event in events:
            phone.wait_event(event)
        if events[-1] != "CALL_CLOSED":
            phone.hangup()
        run.finish()


def test_sipp_redirects_a_phone_to_another(network: Lab, tmp_path: Path) -> None:
    with (
        baresip(network, tmp_path / "indoor", "indoor") as indoor,
        baresip(network, tmp_path / "door", "door") as door,
        sipp(network, tmp_path / "sipp", "uas_redirect", keys={"contact": indoor.uri}) as run,
    ):
        door.dial(f"sip:indoor@{run.address}:{run.port}")
        run.finish()
        indoor.wait_event("CALL_ESTABLISHED")


def test_sipp_insists_on_the_refusal_it_was_told(network: Lab, tmp_path: Path) -> None:
    with baresip(network, tmp_path / "phone", "indoor", auto_answer=False) as phone:
        target = f"{phone.address}:5060"
        keys = {"status": "486"}
        with sipp(
            network, tmp_path / "sipp", "uac_refused", target=target, service="indoor", keys=keys
        ) as run:
            phone.wait_event("CALL_INCOMING")
            phone.hangup()
            run.finish()
