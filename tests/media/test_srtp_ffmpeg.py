"""SRTP with FFmpeg, whose own it is: over a wrap of the sequence numbers, on a line with losses."""

import base64
import socket
import subprocess
from pathlib import Path

import pytest
from doorstation.media.g711 import encode_pcma
from doorstation.media.srtp import Keys, Srtp

from tests.support.rtp import parse_rtp
from tests.support.sounds import voice
from tests.support.waiting import wait_until

SUITE = "AES_CM_128_HMAC_SHA1_80"
KEY = bytes(range(30))
OTHER = bytes(range(30, 60))
COUNT = 60
FIRST = 0x10000 - COUNT // 2
LOST = {25, 28, 29, 30, 31, 32, 40}
"""The last two before the wrap and the first three after it are among them."""


def speech() -> bytes:
    return encode_pcma(b"".join(voice(2, 8000)))[: COUNT * 160]


def written(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.mark.parametrize("suite", [SUITE, "AES_CM_128_HMAC_SHA1_32"])
def test_what_ffmpeg_sends_opens_after_a_wrap_whose_packets_were_lost(
    tmp_path: Path, suite: str
) -> None:
    (tmp_path / "said.al").write_bytes(speech())
    ours = Srtp(Keys(suite, OTHER, KEY))
    said = speech()
    begin = None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        link.settimeout(5)
        to = f"srtp://127.0.0.1:{link.getsockname()[1]}?pkt_size=172"
        spoken = ("-f", "alaw", "-ar", "8000", "-ac", "1", "-i", str(tmp_path / "said.al"))
        sent = ("-c:a", "copy", "-f", "rtp", "-payload_type", "8", "-seq", str(FIRST))
        protected = ("-srtp_out_suite", suite, "-srtp_out_params", written(KEY))
        command = ("ffmpeg", "-v", "error", "-nostdin", "-re", *spoken, *sent, *protected, to)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as sender:
            for count in range(COUNT):
                sealed = link.recv(2048)
                if count in LOST:
                    continue
                opened = ours.unprotect(sealed)
                assert opened is not None, count
                packet = parse_rtp(opened)
                assert packet.sequence == FIRST + count & 0xFFFF
                begin = packet.timestamp if begin is None else begin
                place = packet.timestamp - begin & 0xFFFFFFFF
                assert packet.payload == said[place : place + len(packet.payload)] != b""
            sender.kill()


def test_what_we_send_opens_at_ffmpeg_after_a_wrap_whose_packets_were_lost(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        port = link.getsockname()[1] + 1 & ~1
    heard = tmp_path / "heard.al"
    (tmp_path / "line.sdp").write_text(
        "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=audio {port} RTP/SAVP 8\na=crypto:1 {SUITE} inline:{written(KEY)}\n"
    )
    line = ("-protocol_whitelist", "file,udp,rtp,srtp", "-reorder_queue_size", "0")
    read = ("-analyzeduration", "0", "-i", str(tmp_path / "line.sdp"))
    write = ("-c:a", "copy", "-flush_packets", "1", "-f", "alaw", str(heard))
    ours = Srtp(Keys(SUITE, KEY, OTHER))
    said = speech()
    command = ("ffmpeg", "-v", "error", "-nostdin", *line, *read, *write)
    with (
        subprocess.Popen(command) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link,
    ):
        try:
            wait_until(lambda: f":{port:04X} " in Path("/proc/net/udp").read_text(), 10)
            expected = []
            for count in range(COUNT):
                number, stamp = FIRST + count & 0xFFFF, (160 * count).to_bytes(4, "big")
                head = b"\x80\x08" + number.to_bytes(2, "big") + stamp + b"door"
                piece = said[160 * count : 160 * count + 160]
                sealed = ours.protect(head + piece)
                if count not in LOST:
                    expected.append(piece)
                    link.sendto(sealed, ("127.0.0.1", port))
            size = sum(map(len, expected))
            wait_until(lambda: heard.exists() and heard.stat().st_size >= size, 10)
        finally:
            listener.kill()
    assert heard.read_bytes() == b"".join(expected)
