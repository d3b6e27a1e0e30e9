"""Whatever arrives, the transaction layer neither raises nor fills up."""

from doorstation.ids import SeededIds
from doorstation.sip.endpoint import (
    CancelReceived,
    Endpoint,
    RequestReceived,
)
from doorstation.sip.message import make_response
from doorstation.sip.transport import CloseFlow, Flow, Send, Transport
from hypothesis import given, settings
from hypothesis import strategies as st

UDP = Flow(1, Transport.UDP, ("192.0.2.1", 5060), ("192.0.2.66", 5060))
PIECES = [
    b"INVITE sip:door@192.0.2.1 SIP/2.0\r\n",
    b"ACK sip:door@192.0.2.1 SIP/2.0\r\n",
    b"CANCEL sip:door@192.0.2.1 SIP/2.0\r\n",
    b"OPTIONS sips:[::1];lr SIP/2.0\r\n",
    b"SIP/2.0 200 OK\r\n",
    b"Via: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bKx;rport\r\n",
    b"Via: SIP/2.0/TCP host:0;received=;rport=a;branch\r\n",
    b'v: SIP / 2.0 / UDP [::1]:9;x="a,b" , SIP/2.0/UDP z\r\n',
    b'Via: SIP/2.0/UDP a;branch=z9hG4bKq;z="\\\x00\\"\\\xff";rport\r\n',
    b"From: <sip:a@b>;tag=1\r\n",
    b'f: "a\\\x00b" <sip:a@b;x>;tag="\xff"\r\n',
    b"To: <sip:a@b>\r\n",
    b"t: <tel:1>;tag=2\r\n",
    b"Call-ID: c\r\n",
    b"CSeq: 1 INVITE\r\n",
    b"CSeq: 1 OPTIONS\r\n",
    b"CSeq: 1 ACK\r\n",
    b"CSeq: 1 CANCEL\r\n",
    b"Max-Forwards: 70\r\n",
    b"Contact: *\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 99999\r\n",
    b"Timestamp: 1\r\n",
    b"\r\n",
    b"\rabc\n",
    b"\x00",
]
BYTES = st.one_of(
    st.binary(max_size=80),
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=14).map(b"".join),
    st.permutations(PIECES[5:19]).map(lambda lines: PIECES[0] + b"".join(lines[:7]) + b"\r\n"),
)


@settings(max_examples=400)
@given(st.lists(BYTES, max_size=6), st.booleans(), st.integers(1, 3))
def test_no_bytes_raise_or_leave_anything_behind(
    arrivals: list[bytes], stream: bool, answers: int
) -> None:
    machine = Endpoint(SeededIds(1))
    flow = Flow(2, Transport.TCP, UDP.local, UDP.remote) if stream else UDP
    closed = False
    for data in arrivals:
        if closed:
            break
        for output in machine.data_received(flow, data, 0.0):
            closed = closed or isinstance(output, CloseFlow)
            if isinstance(output, Send):
                assert output.flow.remote[0] == "192.0.2.66"
            if isinstance(output, RequestReceived):
                response = make_response(output.request, (486, 200, 404)[answers - 1], to_tag="t")
                machine.respond(output.server_id, response, 0.0)
            if isinstance(output, CancelReceived):
                assert output.request.method == "CANCEL"
    steps = 0
    while (at := machine.deadline) is not None:
        machine.timer_fired(at)
        steps += 1
        assert steps < 500
    assert {name: n for name, n in machine.load.items() if n and name != "flows"} == {}
