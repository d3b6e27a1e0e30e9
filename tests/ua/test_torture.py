"""RFC 4475 and RFC 5118: each message gets the answer that the RFC asks of a user agent.

`None`: taken and not answered with a final response yet (a call that now rings). `()`: dropped.
The verdicts of the parser alone are in tests/sip/test_torture.py.
"""

from pathlib import Path

import pytest
from doorstation.sip.uri import SipUri
from doorstation.ua.config import AgentConfig, Peer
from doorstation.ua.events import CallArrived
from msgspec.structs import replace

from tests.support.wire import REMOTE, Wire, udp

DATA = Path(__file__).parent.parent / "data" / "torture"

ANSWERS: dict[str, int | tuple[()] | None] = {
    # Inside a dialog that nobody here knows: well read, and 481 (RFC 3261 §12.2.2).
    "rfc4475/short_tortuous_invite": 481,
    "rfc4475/wide_range_of_valid_characters": 501,
    "rfc4475/valid_percent_escapes": None,
    "rfc4475/escaped_nulls_in_uris": 405,
    "rfc4475/percent_that_is_no_escape": 501,
    "rfc4475/no_blank_between_display_name_and_bracket": 200,
    "rfc4475/long_values_in_header_fields": None,
    "rfc4475/octets_after_the_body_in_a_datagram": 405,
    "rfc4475/semicolon_parameters_in_user_part": 200,
    "rfc4475/unknown_transports_in_via": 200,
    "rfc4475/binary_multipart_body": 415,
    "rfc4475/unusual_reason_phrase": (),
    "rfc4475/empty_reason_phrase": (),
    "rfc4475/date_not_in_gmt": None,
    "rfc4475/branch_of_the_magic_cookie_alone": 200,
    "rfc4475/request_uri_of_unknown_scheme": 416,
    "rfc4475/request_uri_of_atypical_scheme": 416,
    "rfc4475/unknown_schemes_in_headers": 405,
    "rfc4475/require_and_proxy_require_unknown": 420,
    "rfc4475/unknown_content_type": 415,
    "rfc4475/unknown_authorization_scheme": 405,
    "rfc4475/response_with_broadcast_via": (),
    "rfc4475/max_forwards_zero": 483,
    "rfc4475/contact_with_unknown_header_parameter": 405,
    "rfc4475/contact_with_unknown_uri_parameter": 405,
    "rfc4475/contact_uri_with_escaped_route": 405,
    "rfc4475/accept_of_unknown_type": 406,
    "rfc4475/invite_of_rfc_2543": None,
    "rfc4475/extraneous_separators": 400,
    "rfc4475/content_length_beyond_the_datagram": 400,
    "rfc4475/negative_content_length": 400,
    "rfc4475/request_numbers_too_large": 400,
    "rfc4475/display_name_without_closing_quote": 400,
    "rfc4475/request_uri_in_brackets": 400,
    "rfc4475/blank_in_request_uri": 400,
    "rfc4475/several_blanks_in_request_line": 400,
    "rfc4475/blanks_at_end_of_request_line": 400,
    "rfc4475/headers_in_request_uri": 400,
    "rfc4475/contact_uri_with_headers_without_brackets": 400,
    "rfc4475/blanks_within_brackets": 400,
    "rfc4475/comma_in_unquoted_display_name": 400,
    "rfc4475/unknown_protocol_version": 505,
    "rfc4475/cseq_of_another_method": 400,
    "rfc4475/unknown_method_with_cseq_of_another": 400,
    "rfc4475/required_headers_missing": 400,
    "rfc4475/single_headers_twice": 400,
    "rfc4475/content_length_twice": 400,
    "rfc4475/response_numbers_too_large": (),
    "rfc4475/response_code_too_large": (),
    "rfc5118/ipv6_reference": 405,
    "rfc5118/ipv6_without_brackets_in_request_uri": 400,
    "rfc5118/port_within_the_brackets": 405,
    "rfc5118/port_after_the_brackets": 405,
    "rfc5118/received_with_brackets": 481,
    "rfc5118/received_without_brackets": 200,
    # The address is fine over IPv6; G.726 alone is what we do not speak.
    "rfc5118/ipv6_in_session_description": 488,
    "rfc5118/ipv4_and_ipv6_vias": 481,
    "rfc5118/ipv4_and_ipv6_media": None,
    "rfc5118/ipv4_mapped_addresses": 488,
    "rfc5118/three_colons": 200,
    "rfc5118/two_colons": 200,
}

IPV6_CALLS = {"rfc5118/ipv6_in_session_description"}


def test_every_message_has_an_answer() -> None:
    assert {f"{p.parent.name}/{p.stem}" for p in DATA.glob("*/*.sip")} == set(ANSWERS)


@pytest.mark.parametrize(("name", "wanted"), ANSWERS.items())
def test_message_gets_the_answer_its_rfc_asks_for(
    name: str, wanted: int | tuple[()] | None
) -> None:
    source = "2001:db8::1" if name in IPV6_CALLS else REMOTE
    wire = Wire(AgentConfig(peers=(Peer("caller", SipUri(host=source)),)))
    flow = udp(source)
    if name in IPV6_CALLS:
        flow = replace(flow, local=("2001:db8::2", 5060))
    wire.receive((DATA / f"{name}.sip").read_bytes(), flow)
    answers = [message for message in wire.sent() if hasattr(message, "status")]
    if wanted is None:
        assert answers == []
        assert len(wire.told(CallArrived)) == 1
    elif wanted == ():
        assert answers == []
        assert wire.events == []
    else:
        assert [answer.status for answer in answers] == [wanted]
        assert answers[0].reason
    wire.wait(120)
    assert all(count == 0 for table, count in wire.endpoint.load.items() if table != "flows") or (
        wanted is None
    )
