"""Reading and writing a message.

An INVITE of 900 bytes with SDP, from bytes to a message of which Via, From, To, Call-ID, CSeq and
Contact are values, and from there to bytes again; the best of many batches, each library in Python
processes of its own, five times by turns. The others are what PyPI has for Python and reads whole
messages. Of them only sipmessage makes all these values; aiosip leaves Via and CSeq text (and needs
two names that Python has lost since); pyVoIP only reads.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.rivals import LIBRARIES
from bench.run import Bench
from bench.table import OURS, Row, Target

SCRIPT = Path(__file__).parent.parent / "readers.py"
SIZE = 900
ROUNDS = 5


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    invite = bench.folder / "invite.sip"
    invite.write_bytes(_invite())
    programs = {"doorstation": sys.executable, "doorstation-lines": sys.executable}
    if bench.rivals is not None:
        programs |= {name: str(bench.rivals) for name in LIBRARIES}
    # By turns: a machine that is slower for a while is so for all of them.
    runs = [{n: _run(python, invite, n) for n, python in programs.items()} for _ in range(ROUNDS)]
    found = {name: _best([run[name] for run in runs]) for name in programs}
    ours, lines = found.pop("doorstation"), found.pop("doorstation-lines")
    took = float(ours["read"]) + float(ours["write"])
    notes = [
        f"Doorstation: reads in {ours['read']:.0f} µs, writes in {ours['write']:.0f} µs; "
        f"without looking into the headers it reads in {lines['read']:.0f} µs"
    ]
    others: dict[str, float] = {}
    for name, other in found.items():
        if "fault" in other:
            notes.append(f"{name}: {other['fault']}")
        elif other["write"] is None:
            notes.append(f"{name}: reads in {other['read']:.0f} µs")
        else:
            others[name] = other["read"] + other["write"]
            text = f"reads in {other['read']:.0f} µs, writes in {other['write']:.0f} µs"
            notes.append(f"{name}: {text}, {others[name] / took:.1f} times as long")
    if bench.rivals is None:
        notes.append("no other library could be installed")
    target = Target(min(others.values())) if others else None
    return [Row("read and write a 900-byte INVITE", "µs", {OURS: took}, target)], notes


def _run(python: str, invite: Path, name: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, str(SCRIPT), str(invite), name], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"fault": done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout)[name]
    return found


def _best(runs: list[dict[str, Any]]) -> dict[str, Any]:
    faulty = next((run for run in runs if "fault" in run), None)
    if faulty is not None:
        return faulty
    return {key: None if runs[0][key] is None else min(run[key] for run in runs) for key in runs[0]}


def _invite() -> bytes:
    sdp = (
        "v=0\r\no=- 3712 1 IN IP4 192.0.2.20\r\ns=-\r\nc=IN IP4 192.0.2.20\r\nt=0 0\r\n"
        "m=audio 17000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
        "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    )
    head = (
        "INVITE sip:door@198.51.100.7:5060 SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKc07.9a1f;rport\r\n"
        "Via: SIP/2.0/UDP 192.0.2.20:5062;branch=z9hG4bK77ef4c2312983;received=192.0.2.20\r\n"
        "Record-Route: <sip:192.0.2.1;lr;ftag=1928301774>\r\n"
        "Max-Forwards: 69\r\n"
        'From: "Kitchen" <sip:kitchen@example.test>;tag=1928301774\r\n'
        "To: <sip:door@example.test>\r\n"
        "Call-ID: a84b4c76e66710@192.0.2.20\r\n"
        "CSeq: 314159 INVITE\r\n"
        "Contact: <sip:kitchen@192.0.2.20:5062>\r\n"
        "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO\r\n"
        "Content-Type: application/sdp\r\n"
    )
    end = f"Content-Length: {len(sdp)}\r\n\r\n"
    spare = SIZE - len(head) - len(end) - len(sdp) - len("User-Agent: \r\n")
    return f"{head}User-Agent: {'x' * spare}\r\n{end}{sdp}".encode()
