"""Real peers for tests: Kamailio (registrar and proxy), baresip (a phone), SIPp (literal flows).

Each is a context manager that returns once the peer is ready and leaves nothing behind:

    with (
        lab() as network,
        kamailio(network, tmp_path / "proxy", {"door": "d", "indoor": "i"}) as proxy,
        baresip(network, tmp_path / "indoor", "indoor", registrar=proxy) as phone,
    ):
        ...  # the station, on network.station, registers at proxy.address and calls phone.uri
        phone.wait_event("CALL_ESTABLISHED")
        phone.send_digits("5")
"""

import json
import math
import signal
import socket
import struct
import subprocess
import threading
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support.lab import Lab, Process, eventually

HERE = Path(__file__).parent
DOMAIN = "example.test"

CLIENTS_VERIFIED = """
modparam("tls", "require_certificate", 1)
modparam("tls", "verify_certificate", 1)
modparam("tls", "ca_list", "{}")
"""


# Kamailio


class Kamailio:
    """A running registrar and proxy: UDP and TCP on 5060, TLS on 5061, for `domain`."""

    def __init__(
        self, process: Process, address: str, domain: str, users: Mapping[str, str], directory: Path
    ) -> None:
        self._process = process
        self._directory = directory
        self.address = address
        self.domain = domain
        self.users = dict(users)
        self.ca = directory / "ca.pem"
        """What signed its certificate, which names `sip1.` + domain, the domain and the address."""

    def port(self, transport: str = "udp") -> int:
        return 5061 if transport.lower() == "tls" else 5060

    def uri(self, user: str) -> str:
        return f"sip:{user}@{self.domain}"

    def rpc(self, method: str, *params: str | float) -> Any:
        """Give one RPC command ("ul.dump", "tm.stats", ...); AssertionError on refusal."""
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
        reply = self._directory / f"reply{threading.get_ident()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.settimeout(5)
            link.bind(str(reply))
            try:
                link.sendto(json.dumps(request).encode(), str(self._directory / "rpc"))
                answer = json.loads(link.recv(65535))
            finally:
                reply.unlink()
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def contacts(self, user: str) -> list[str]:
        """The Contact URIs now registered for `user`."""
        domains = self.rpc("ul.dump")["Domains"]
        return [
            contact["Contact"]["Address"]
            for domain in domains
            for entry in domain["Domain"]["AoRs"]
            if entry["Info"]["AoR"] == user
            for contact in entry["Info"]["Contacts"]
            if contact["Contact"]["Expires"] not in ("deleted", "expired")
        ]

    def wait_registered(self, user: str, seconds: float = 10.0) -> str:
        """Wait until `user` has a contact; the first one."""
        found = self._process.ready(lambda: self.contacts(user), f"{user} registered", seconds)
        return found[0]

    def forget(self, user: str) -> None:
        """Remove the user's contacts, as a registrar that was restarted does."""
        self.rpc("ul.rm", "location", user)

    def log_text(self) -> str:
        return self._process.log_text()

    def stop(self) -> None:
        """Die at once: nothing is written, nobody is told."""
        self._process.kill()


@contextmanager
def kamailio(
    lab: Lab,
    directory: Path,
    users: Mapping[str, str],
    *,
    algorithm: Literal["MD5", "SHA-256"] = "MD5",
    record_routes: Literal[1, 2] = 1,
    domain: str = DOMAIN,
    address: str | None = None,
    clients: Path | None = None,
) -> Iterator[Kamailio]:
    """Run a registrar for `users` (name: password) that challenges with `algorithm`, and by TLS
    speaks to those alone whose certificates the authority `clients` has signed.

    `record_routes=2`: over UDP, a call through it gets two Record-Route headers (transports that
    differ on the two sides always get two). A given `address` starts it where an earlier one was.
    """
    directory.mkdir(parents=True, exist_ok=True)
    address = address or lab.address()
    (directory / "db").mkdir(exist_ok=True)
    rows = ["id(int,auto) username(string) domain(string) password(string) "]
    rows += [f"{n}:{user}:{domain}:{users[user]}" for n, user in enumerate(users, 1)]
    (directory / "db/subscriber").write_text("\n".join(rows) + "\n")
    if not (directory / "cert.pem").exists():
        _make_certificates(directory, f"sip1.{domain}", [f"DNS:{domain}", f"IP:{address}"])
    config = (HERE / "kamailio/kamailio.cfg").read_text()
    filled = {
        "HOST": address,
        "DIR": str(directory),
        "MODULES": f"{_library('kamailio/modules/tm.so', 'kamailio').parent}/",
        "DOMAIN": domain,
        "ALGORITHM": "" if algorithm == "MD5" else algorithm,
        "CLIENTS": "" if clients is None else CLIENTS_VERIFIED.format(clients),
    }
    for name, value in filled.items():
        config = config.replace(f"@{name}@", value)
    (directory / "kamailio.cfg").write_text(config)
    (directory / "rpc").unlink(missing_ok=True)  # of one that was killed
    switches = ["-A", "TWO_RECORD_ROUTES"] if record_routes == 2 else []
    command = ["kamailio", "-f", str(directory / "kamailio.cfg"), *switches]
    command += ["-m", "32", "-M", "4", "-DD", "-E", "-Y", str(directory)]
    with lab.program(*command, directory=directory, log="kamailio.log") as process:
        started = Kamailio(process, address, domain, users, directory)
        process.ready(lambda: (directory / "rpc").exists(), "opens its control socket")
        process.ready(lambda: _answers_options(address), "answers OPTIONS")
        yield started


def _answers_options(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(0.2)
        try:
            link.connect((address, 5060))
            here, port = link.getsockname()
            link.send(
                f"OPTIONS sip:{address} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {here}:{port};branch=z9hG4bKready;rport\r\n"
                f"From: <sip:ready@{here}>;tag=1\r\nTo: <sip:{address}>\r\n"
                f"Call-ID: ready\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n".encode()
            )
            return link.recv(2048).startswith(b"SIP/2.0 200")
        except OSError:
            return False


def _make_certificates(directory: Path, name: str, others: Sequence[str]) -> None:
    """`ca.pem` signs `cert.pem` (key in `key.pem`), valid for `name` and `others`."""
    (directory / "ext").write_text(f"subjectAltName={','.join([f'DNS:{name}', *others])}\n")
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for command in (
        f"req -x509 {curve} -keyout cakey.pem -out ca.pem -days 3650 -subj /CN=tests"
        " -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
        f"req {curve} -keyout key.pem -out req.pem -subj /CN={name}",
        "x509 -req -in req.pem -CA ca.pem -CAkey cakey.pem -CAcreateserial -days 3650"
        " -extfile ext -out cert.pem",
    ):
        subprocess.run(
            ["openssl", *command.split()], cwd=directory, check=True, capture_output=True
        )


def _library(pattern: str, package: str) -> Path:
    found = [*Path("/usr/lib").glob(pattern), *Path("/usr/lib").glob(f"*/{pattern}")]
    assert found, f"no {pattern} below /usr/lib: install the Debian package {package}"
    return found[0]


# baresip


class Baresip:
    """A running phone. Its events are collected from the start; nothing is lost between waits."""

    def __init__(
        self, process: Process, link: socket.socket, address: str, uri: str, directory: Path
    ) -> None:
        self._process = process
        self._link = link
        self._directory = directory
        self._changed = threading.Condition()
        self._answers: dict[str, dict[str, Any]] = {}
        self._seen = 0
        self._tokens = 0
        self.address = address
        self.uri = uri
        """Its address of record; without a registrar, where it is reached directly."""
        self.events: list[dict[str, Any]] = []
        """Every event so far: {"type": "CALL_RINGING", "peeruri": …, "param": …, …}."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def dial(self, uri: str) -> None:
        self.command("dial", uri)

    def accept(self) -> None:
        """Answer the call that rings."""
        self.command("accept")

    def hangup(self) -> None:
        """End or refuse the call (486 while it rings)."""
        self.command("hangup")

    def hold(self) -> None:
        """Put the call on hold by re-INVITE."""
        self.command("hold")

    def resume(self) -> None:
        """Take the call off hold, as soon as the phone has the answer to its holding."""

        def taken() -> bool:
            try:
                self.command("resume")
            except AssertionError:  # 1.1.0 refuses while its re-INVITE is under way
                return False
            return True

        eventually(taken, "the phone takes its call off hold")

    def send_digits(self, digits: str) -> None:
        """Send DTMF by RFC 4733 in the call that is up."""
        self.command("sndcode", digits)

    def digits(self) -> str:
        """Every DTMF digit heard so far."""
        with self._changed:
            starts = [event for event in self.events if event["type"] == "CALL_DTMF_START"]
        return "".join(event["param"] for event in starts)

    def heard(self) -> Path:
        """The WAV of what it hears in its latest call (8 kHz); whole once the call has ended."""
        return self._dump("dec")

    def said(self) -> Path:
        """The WAV of what it says in its latest call."""
        return self._dump("enc")

    def command(self, name: str, params: str = "") -> str:
        """Give one of its commands (`dial`, `callstat`, ...); the output, or AssertionError."""
        with self._changed:
            self._tokens += 1
            token = str(self._tokens)
            text = json.dumps({"command": name, "params": params, "token": token}).encode()
            self._link.sendall(b"%d:%s," % (len(text), text))
            if not self._changed.wait_for(lambda: token in self._answers, 5):
                raise AssertionError(f"baresip does not answer {name}:\n{self._process.tail()}")
            answer = self._answers.pop(token)
        assert answer.get("ok"), f"baresip refuses {name} {params}: {answer}"
        return str(answer.get("data", ""))

    def wait_event(self, kind: str, seconds: float = 10.0, **fields: str) -> dict[str, Any]:
        """Wait for the next event of `kind` with these fields, after the last one waited for.

        Kinds: REGISTER_OK, REGISTER_FAIL, CALL_INCOMING, CALL_OUTGOING, CALL_RINGING,
        CALL_PROGRESS, CALL_ESTABLISHED, CALL_CLOSED, CALL_DTMF_START, CALL_DTMF_END, CALL_RTCP, ...
        """

        def found() -> dict[str, Any] | None:
            for index in range(self._seen, len(self.events)):
                event = self.events[index]
                if event["type"] == kind and fields.items() <= event.items():
                    self._seen = index + 1
                    return event
            return None

        with self._changed:
            event = self._changed.wait_for(found, seconds)
            if event is None:
                kinds = [each["type"] for each in self.events]
                raise AssertionError(f"no {kind} {fields or ''} within {seconds:g} s, only {kinds}")
            return event

    def log_text(self) -> str:
        return self._process.log_text()

    def _dump(self, way: str) -> Path:
        def newest() -> Path | None:
            files = list(self._directory.glob(f"dump-*-{way}.wav"))
            return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)

        found = eventually(newest, f"a recording dump-*-{way}.wav")
        assert found is not None
        return found

    def _read(self) -> None:
        data = b""
        while True:
            try:
                more = self._link.recv(65536)
            except OSError:
                return
            if not more:
                return
            data += more
            while (colon := data.find(b":")) >= 0:
                size = int(data[:colon])
                if len(data) < colon + size + 2:
                    break
                message = json.loads(data[colon + 1 : colon + 1 + size])
                data = data[colon + size + 2 :]
                with self._changed:
                    if message.get("event"):
                        self.events.append(message)
                    else:
                        self._answers[str(message.get("token"))] = message
                    self._changed.notify_all()


@contextmanager
def baresip(
    lab: Lab,
    directory: Path,
    user: str,
    *,
    registrar: Kamailio | None = None,
    transport: Literal["udp", "tcp", "tls"] = "udp",
    auto_answer: bool = True,
    source: Path | None = None,
    codecs: str = "PCMA/8000/1,PCMU/8000/1",
    encryption: Literal["", "srtp", "srtp-mand", "srtp-mandf", "dtls_srtp"] = "",
    rtcp_mux: bool = False,
    rate: int = 8000,
    expires: int = 60,
    address: str | None = None,
    password: str = "",
    contacts: Sequence[str] = (),
) -> Iterator[Baresip]:
    """Run a phone as `user`; registered on return when there is a `registrar` (which knows `user`).

    `source`: what it says, a WAV of mono S16 at `rate`, ten minutes of 440 Hz where none is given;
    it hangs up at the file's end. `encryption`: "srtp" has keys in RTP/AVP, "srtp-mand" is
    RTP/SAVP. Without `auto_answer`, use `accept`. `address`: one that `lab.address` gave, IPv6 too.
    `password`: what it proves where it calls without a registrar. `contacts`: URIs it knows; its
    command `message` sends to the first.
    """
    directory.mkdir(parents=True, exist_ok=True)
    address = address or lab.address()
    host = f"[{address}]" if ":" in address else address
    first, last = lab.media_ports(address)
    if source is None:
        source = write_tone(directory / "tone.wav", 440, 600)
    modules = _library("baresip/modules/g711.so", "baresip-core").parent
    (directory / "config").write_text(
        f"""\
poll_method epoll
sip_listen {host}:5060
net_interface {address}
sip_verify_server no
{f"sip_cafile {registrar.ca}" if registrar else ""}
call_max_calls 4
audio_player aubridge,speaker
audio_source aufile,{source}
audio_alert aubridge,alert
ausrc_srate {rate}
auplay_srate {rate}
ausrc_channels 1
auplay_channels 1
rtp_ports {first}-{last}
rtp_stats yes
rtcp_mux {"yes" if rtcp_mux else "no"}
opus_inbandfec yes
opus_packet_loss 10
jitter_buffer_delay 5-10
snd_path {directory}
ctrl_tcp_listen {host}:4444
module_path {modules}
module g711.so
module g722.so
module l16.so
module opus.so
module aufile.so
module aubridge.so
module sndfile.so
module ctrl_tcp.so
module uuid.so
module srtp.so
module dtls_srtp.so
module_tmp account.so
module_app menu.so
{"module_app contact.so" if contacts else ""}
statmode_default off
"""
    )
    if registrar:
        uri = registrar.uri(user)
        proxy = f"sip:{registrar.address}:{registrar.port(transport)};transport={transport}"
        password = registrar.users[user]
        way = f';auth_user={user};auth_pass={password};outbound="{proxy}";regint={expires}'
    else:
        uri = f"sip:{user}@{host}"
        way = ";regint=0" + (f";auth_user={user};auth_pass={password}" if password else "")
    answer = ";answermode=auto" if auto_answer else ""
    answer += f";mediaenc={encryption}" if encryption else ""
    account = f"<{uri};transport={transport}>{way};audio_codecs={codecs}{answer}\n"
    (directory / "accounts").write_text(account)
    (directory / "contacts").write_text("".join(f'"{uri}" <{uri}>\n' for uri in contacts))
    command = ("baresip", "-f", str(directory), "-v")
    with lab.program(*command, directory=directory, log="baresip.log") as process:
        link = process.ready(lambda: _connect(address, 4444), "opens its control port")
        assert link is not None
        with link:
            phone = Baresip(process, link, address, uri, directory)
            if registrar:
                process.ready(lambda: "200 OK" in process.log_text(), "is registered")
            yield phone
            link.shutdown(socket.SHUT_RDWR)
            phone._reader.join()


def _connect(address: str, port: int) -> socket.socket | None:
    try:
        link = socket.create_connection((address, port), 1)
    except OSError:
        return None
    link.settimeout(None)
    return link


def write_tone(path: Path, hertz: float, seconds: int, rate: int = 8000) -> Path:
    """Write a mono S16 sine; whole seconds of a whole number of hertz join without a click."""
    second = b"".join(
        struct.pack("<h", round(9000 * math.sin(2 * math.pi * hertz * n / rate)))
        for n in range(rate)
    )
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(second * seconds)
    return path


# SIPp


@dataclass(frozen=True, slots=True)
class Sipp:
    """A SIPp scenario under way."""

    process: Process
    address: str
    port: int
    directory: Path

    def finish(self, seconds: float = 30.0) -> None:
        """Wait for its end; AssertionError with what SIPp missed when a call failed."""
        status = self.process.wait(seconds)
        if status:
            raise AssertionError(f"sipp ended with {status}:\n{self._faults()}")

    def messages(self) -> str:
        """Every message sent and received, as SIPp logs them."""
        return (self.directory / "messages.log").read_text("utf-8", "replace")

    def _faults(self) -> str:
        logs = [self.directory / "errors.log", self.directory / "messages.log", self.process.log]
        found = [log.read_text("utf-8", "replace") for log in logs if log.exists()]
        return "\n".join(text[-6000:] for text in found)


# What most messages of a scenario share; [name] in the scenario, filled in before SIPp reads it.
_SIPP_PARTS = {
    # A request of the caller before there is a dialog, and inside it.
    "first": """\
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:sipp@[local_ip]:[local_port]>;tag=[pid]-[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>
Call-ID: [call_id]
Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>
Max-Forwards: 70""",
    "inside": """\
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:sipp@[local_ip]:[local_port]>;tag=[pid]-[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
[routes]
Call-ID: [call_id]
Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>
Max-Forwards: 70""",
    # A request of the called side, which kept From and To of the INVITE in $remote and $local.
    "called": """\
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: [$local];tag=[pid]-[call_number]
To: [$remote]
[routes]
Call-ID: [call_id]
Contact: <sip:[service]@[local_ip]:[local_port];transport=[transport]>
Max-Forwards: 70""",
    # A response that makes a dialog, and one inside it.
    "reply": """\
[last_Via:]
[last_Record-Route:]
[last_From:]
[last_To:];tag=[pid]-[call_number]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:[service]@[local_ip]:[local_port];transport=[transport]>""",
    "reply_inside": """\
[last_Via:]
[last_Record-Route:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:[service]@[local_ip]:[local_port];transport=[transport]>""",
    # A body, and the rest of a description after its o= line.
    "empty": "Content-Length: 0\n\n",
    "sdp": """\
Content-Type: application/sdp
Content-Length: [len]

v=0
o=sipp [call_number] 1 IN IP[local_ip_type] [local_ip]
[sdp_rest]""",
    "sdp_2": """\
Content-Type: application/sdp
Content-Length: [len]

v=0
o=sipp [call_number] 2 IN IP[local_ip_type] [local_ip]
[sdp_rest]""",
    "sdp_rest": """\
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [auto_media_port] RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20
""",
}


@contextmanager
def sipp(
    lab: Lab,
    directory: Path,
    scenario: str,
    *,
    target: str = "",
    service: str = "door",
    calls: int = 1,
    rate: int = 10,
    transport: Literal["u1", "t1", "tn", "l1"] = "u1",
    pause_ms: int = 500,
    keys: Mapping[str, str] | None = None,
    port: int = 5060,
    address: str | None = None,
    echoes: bool = False,
) -> Iterator[Sipp]:
    """Run tests/support/sipp/`scenario`.xml for `calls` calls.

    `target` ("address:port") is whom a `uac_` scenario calls; a `uas_` scenario waits for calls and
    is listening on return. `keys` fill [name] in the scenario; `pause_ms` is its <pause/>;
    `address` is one that `lab.address` gave; with `echoes` all RTP goes back to who sent it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    address = address or lab.address()
    flow = (HERE / f"sipp/{scenario}.xml").read_text()
    # SIPp's own -key does not reach a status line.
    for name, value in {**(keys or {}), **_SIPP_PARTS}.items():
        flow = flow.replace(f"[{name}]", value)
    (directory / "scenario.xml").write_text(flow)
    command = ["sipp", "-sf", "scenario.xml", "-s", service, "-i", address, "-p", str(port)]
    command += ["-mi", address, "-mp", "16000", "-m", str(calls), "-r", str(rate)]
    command += ["-t", transport, "-d", str(pause_ms), "-nostdin"]
    command += ["-trace_msg", "-message_file", str(directory / "messages.log")]
    command += ["-trace_err", "-error_file", str(directory / "errors.log")]
    command += ["-recv_timeout", "20000", "-cid_str", f"{scenario}-%u-%p@%s"]
    if echoes:
        command.append("-rtp_echo")
    if target:
        command.append(target)
    with lab.program(*command, directory=directory, log="sipp.log") as process:
        run = Sipp(process, address, port, directory)
        if not target:
            kind = "-Htln" if transport != "u1" else "-Huln"
            process.ready(lambda: f"{address}:{port}" in lab.run("ss", kind), "listens for calls")
        yield run
        process.send(signal.SIGKILL)  # asked politely it waits for its calls to end
