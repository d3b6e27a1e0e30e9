"""Settings: every option once, every problem together, no secret in print."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from doorboard.profile import profile_names
from doorstation import cli
from doorstation.errors import SettingsError
from doorstation.media.tones import RINGBACK
from doorstation.settings import page as settings_page
from doorstation.settings import tree
from doorstation.settings.option import Secret, Section
from doorstation.settings.reader import Loader, as_toml, load, parse, problems, remarks
from doorstation.settings.running import same_parts
from doorstation.settings.text import parse_host_port, parse_port_range, sip_uri_fault
from doorstation.settings.tree import Settings
from doorstation.sip.uri import SipUri, parse_uri
from hypothesis import example, given
from hypothesis import strategies as st

SMALLEST = settings_page.SMALLEST.replace("...", "hunter22")

FAKE = """
[board]
kind = "fake"
[peers.kitchen]
uri = "sip:192.168.1.20"
"""


def only(text: str) -> str:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def test_smallest_file_of_ten_lines_loads() -> None:
    settings = parse(SMALLEST)
    assert sum(line != "" for line in SMALLEST.splitlines()) == 10
    assert settings.account is not None
    assert settings.account.password.reveal() == "hunter22"
    assert settings.buttons["call"].steps[0].ring == ("**9",)
    assert settings.buttons["call"].steps[0].seconds == 30.0
    assert settings.relays["door"].codes == (Secret("4711"),)
    assert settings.sip.port == 5060
    assert settings.audio.codecs == ("G722", "opus", "PCMA", "PCMU")


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "doorstation.toml"
    path.write_text(SMALLEST)
    assert load(path) == parse(SMALLEST)


def test_missing_file_is_a_problem_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "none.toml")
    assert caught.value.problems == [
        f"{tmp_path}/none.toml: cannot be read: No such file or directory; a file that can be read"
    ]


def test_file_that_is_not_utf8_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b'[sip]\ndisplay_name = "T\xfcr"\n')
    with pytest.raises(SettingsError, match="not UTF-8 at byte 23"):
        load(path)


def test_file_without_an_end_is_a_problem() -> None:
    with pytest.raises(SettingsError, match="/dev/zero: more than 1000000 bytes; a configuration"):
        load("/dev/zero")


def test_byte_order_mark_of_a_windows_editor_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "doorstation.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    assert load(path) == parse(SMALLEST)


@pytest.mark.parametrize("text", ["[sip\n", f"a = {'[' * 5000}", f"[sip]\nport = {'9' * 5000}"])
def test_text_that_is_not_toml_is_one_problem(text: str) -> None:
    assert only(text).startswith("file: not TOML: ")


def test_number_too_long_to_write_is_a_problem() -> None:
    huge = f"0x{'f' * 5000}"
    assert only(f"[sip]\nport = {huge}") == "sip.port: too large; 0 to 65535"
    assert only(f"[audio]\nrate = {huge}").startswith("audio.rate: a number is none of the choices")


def test_every_problem_is_reported_together() -> None:
    found = problems(
        """
        [acount]
        [account]
        user = "door"
        domian = "fritz.box"
        password = 12345
        transport = "tsl"
        expires = 5
        [buttons.call]
        pin = 17
        debounce = true
        steps = [{ ring = ["kitchn", "sip:a:b@c"], second = 3 }, { ring = [] }, 7]
        [relays.door]
        pin = 17
        pulse = 20
        codes = ["4711", "12", 4711, "47a1"]
        [peers.kitchen]
        uri = "sip:192.168.1.20"
        [readers.gate]
        opens = "dor"
        """
    )
    keys = [problem.partition(":")[0] for problem in found]
    assert keys == [
        "acount",
        "account.domian",
        "account.password",
        "account.transport",
        "account.expires",
        "buttons.call.debounce",
        "buttons.call.steps[0].second",
        "buttons.call.steps[0].ring[1]",
        "buttons.call.steps[1].ring",
        "buttons.call.steps[2]",
        "relays.door.codes[2]",
        "relays.door.codes[3]",
        "relays.door.pin",
        "relays.door.codes[1]",
        "buttons.call.steps[0].ring[0]",
        "readers.gate.opens",
        "relays.door.pulse",
    ]
    assert all("; " in problem for problem in found), "each says what would be valid"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[board]\nkind='fake'\nprofil='x'", 'board.profil: unknown; did you mean "profile"?'),
        ("[sip]\nqqq = 1", "sip.qqq: unknown; known here: user, display_name, port"),
        ("[sip]\nport = '5060'", "sip.port: a text; 0 to 65535"),
        ("[sip]\nport = 5060.5", "sip.port: 5060.5 is not a whole number; 0 to 65535"),
        ("[sip]\nport = 70000", "sip.port: 70000 is out of range; 0 to 65535"),
        ("[sip]\nt1 = nan", "sip.t1: nan is out of range; 0.1 to 4 s"),
        ("[sip]\nt1 = true", "sip.t1: true or false; 0.1 to 4 s"),
        ("[sip]\nt1 = 2026-11-22", "sip.t1: a date or time; 0.1 to 4 s"),
        ("[sip]\nsession_timer = 60", "sip.session_timer: 60 s; 0 or 90 to 86400 s"),
        ("[sip]\nlisten = ['eth0']", "sip.listen[0]: 'eth0' is not an IP address"),
        ("[sip]\nlisten = []", "sip.listen: 0 entries; 1 to 1000 of them"),
        ("[sip]\nlisten = ['[::]']", "sip.listen[0]: '[::]' is not an IP address"),
        (
            "[sip]\nlisten = ['0.0.0.0', '::', '127.0.0.1']",
            "sip.listen[2]: '127.0.0.1' is listened on by '0.0.0.0'; one of them",
        ),
        (
            "[sip]\nlisten = ['fd00::1', '127.0.0.1', 'fd00:0::1']",
            "sip.listen[2]: 'fd00:0::1' is listened on by 'fd00::1'; one of them",
        ),
        ("[sip]\nlisten = ['::1', '::']", "sip.listen[1]: '::' is listened on by '::1'; one"),
        (
            "[sip]\ntransports = ['udp', 'tcp', 'udp']",
            'sip.transports[2]: "udp" is there already; each once',
        ),
        (
            "[sip]\nport = 5061\ntransports = ['tcp', 'tls']\n[tls]\ncertificate = 'c'\nkey = 'k'",
            "tls.port: 5061 is the port of TCP, sip.port; another one",
        ),
        ("[sip]\ntransports = ['sctp']", "sip.transports[0]: 'sctp' is none of the choices"),
        ('[sip]\ndisplay_name = "a\\nb"', "sip.display_name: a control character"),
        ("[tls]\nown_certificate = 'x'", "tls.own_certificate: no certificate; the text of a PEM"),
        (
            "[tls]\nown_certificate = '-----BEGIN PRIVATE KEY-----'",
            "tls.own_certificate: a private key, which belongs into no setting",
        ),
        (
            f"[tls]\nown_certificate = '{'A' * 16385}'",
            "tls.own_certificate: 16385 characters; at most 16384",
        ),
        ('[tls]\nown_certificate = "a\\u001bb"', "tls.own_certificate: a control character"),
        ("sip = 5", "sip: a number; a table of its own"),
        ("peers = 5", "peers: a number; tables, written [peers.NAME]"),
        ("[log]\nlevel = 'inf'", "log.level: 'inf' is none of the choices; one of \"debug\""),
        ("[audio]\nrate = 22050", "audio.rate: 22050 is none of the choices; one of 8000, 16000"),
        ("[audio]\nrate = [[8000]]", "audio.rate: a list is none of the choices"),
        (
            f"[keys]\nx = {{ public = '{'A' * 43}', role = 'owner' }}\n"
            f"y = {{ public = '{'A' * 43}', role = 'viewer' }}",
            "keys.y.public: the same key as keys.x; each key once",
        ),
        ("[keys.x]\npublic = '" + "A" * 43 + "'", 'keys.x.role: missing; one of "viewer"'),
        ("[audio]\nrate = '8000'", "audio.rate: '8000' is none of the choices"),
        ("[audio]\nrtp_ports = '16384'", "audio.rtp_ports: '16384' is not a range of ports"),
        ("[audio]\nrtp_ports = '16384-16385'", "audio.rtp_ports: '16384-16385' is not a range"),
        ("[audio]\ncountry = 'Germany'", "audio.country: 'Germany' is none of the choices"),
        ("[door]\nmax_call = 10\nwarning = 10", "door.warning: not before the call's end"),
        ("[peers.Kitchen]\nuri='sip:10.0.0.2'", "peers.Kitchen: not a name"),
        ("[peers.x]\n", "peers.x.uri: missing; a text in quotes"),
        ("[peers.x]\nuri='192.168.1.2'", "peers.x.uri: '192.168.1.2' is not a SIP URI; write sip:"),
        ("[peers.x]\nuri='sip:a b@c'", "peers.x.uri: ' ' cannot stand in a SIP URI"),
        ("[peers.x]\nuri='sip:a@c;=x'", "peers.x.uri: ';=x' cannot stand in a SIP URI; ;name"),
        ("[peers.x]\nuri='sip:a@fd00::1'", "peers.x.uri: 'fd00::1' is not a host; an IPv6"),
        ("[peers.x]\nuri='sip:%4@c'", "peers.x.uri: % must be followed by two hexadecimal"),
        ("[peers.x]\nuri='sip:#1@c'", "peers.x.uri: '#' cannot stand in a SIP URI; write %23"),
        ("[peers.x]\nuri='sip:a@c?Route=x'", "peers.x.uri: a URI here has no ?headers"),
        ("[peers.x]\nuri='sip:a@c:99999'", "peers.x.uri: '99999' is not a port"),
        ("[peers.x]\nuri='sip:a@[fe80::1%25eth0]'", "peers.x.uri: '[fe80::1%25eth0]' cannot stand"),
        ("[peers.x]\nuri='sip:a@1.2.3.400'", "peers.x.uri: '1.2.3.400' is not a host"),
        ("[peers.x]\nuri='sip:a@[::1'", "peers.x.uri: '[::1' is not an address"),
        ("[peers.x]\nuri='sip:a@-b.de'", "peers.x.uri: '-b.de' is not a host"),
        ("[peers.x]\nuri='sips:a@10.0.0.1'", "peers.x.uri: TLS proves a name, not an address"),
        (
            "[peers.x]\nuri='sip:a@10.0.0.1;transport=TLS'",
            "peers.x.uri: TLS proves a name, not an address",
        ),
        ("[readers.r]\nopens='x'", 'readers.r.opens: no relay "x"; known here: none'),
        (
            "[relays.d]\n[readers.r]\nopens='d'\nprotocol='keypad'\naccepts=['12AB']",
            "readers.r.accepts[0]: not a code",
        ),
        ("[relays.d]\n[readers.r]\nopens='d'\naccepts=['']", "readers.r.accepts[0]: not a card"),
        (
            "[board]\nkind='pi'\n[relays.d]\npin=5\n[readers.a]\nopens='d'\n[readers.b]\nopens='d'",
            "readers.b.port: the board's own is used by readers.a already; a port for each reader",
        ),
        ("[relays.d]\ncodes=['']", "relays.d.codes[0]: not a code; 4 to 16 digits"),
        ("[relays.d]\ncodes=['11112222333344445']", "relays.d.codes[0]: not a code; 4 to 16"),
        ("[relays.d]\ncodes=['4711','4711']", "relays.d.codes[1]: the same code as relays.d.codes"),
        ("[buttons.b]", "buttons.b.steps: missing; a list of tables"),
        ("[buttons.b]\nsteps=[]", "buttons.b.steps: 0 entries; 1 to 16 of them"),
        (
            "[buttons.b]\nsteps=[{ring=['**9']}]",
            'buttons.b.steps[0].ring[0]: "**9" needs an account',
        ),
        (
            "[buttons.b]\nsteps=[{ring=['kitchn']}]",
            'buttons.b.steps[0].ring[0]: "kitchn" is not the name of a peer; did you mean "kitchen',
        ),
        ("[buttons.b]\nsteps=[{ring=['Küche!']}]", "buttons.b.steps[0].ring[0]: 'Küche!' cannot"),
        ("[buttons.b]\nsteps=[{ring=['']}]", "buttons.b.steps[0].ring[0]: '' cannot be rung"),
        (
            "[account]\nuser='a'\ndomain='10.0.0.1'\ntransport='tls'",
            "account.domain: TLS proves a name, not an address",
        ),
        ("[account]\nuser='a@b'\ndomain='b.de'", "account.user: 'a@b' is not a user"),
        ("[account]\nuser=''\ndomain='b.de'", "account.user: '' is not a user"),
        ("[account]\nuser='a'\ndomain='b.de:5060'", "account.domain: 'b.de:5060' is not a host"),
    ],
)
def test_problem_names_key_fault_and_what_would_be_valid(text: str, problem: str) -> None:
    base = "" if "[board]" in text else '[board]\nkind = "fake"\n'
    peers = "" if "peers" in text else "[peers.kitchen]\nuri = 'sip:192.168.1.20'\n"
    if text.startswith(("sip =", "peers =")):
        text, base = f"{text}\n{base}", ""
        found = problems(text + peers)
        assert found[0].startswith(problem), found
        return
    assert only(f"{base}{peers}{text}").startswith(problem)


def test_door_that_nothing_could_ever_configure_is_remarked() -> None:
    blank = parse('[provisioning]\ndiscovery = "off"')
    assert remarks(blank)[0].startswith("nothing to do, ever")
    assert remarks(parse("")) == [], "the network is asked"
    peer = '[peers.kitchen]\nuri = "sip:192.0.2.7"'
    assert remarks(parse(f'[provisioning]\ndiscovery = "off"\n{peer}')) == []


def test_account_that_registers_nowhere_but_where_the_network_says_is_remarked() -> None:
    account = '[account]\nuser = "door"\n'
    assert "DHCP" in remarks(parse(account))[0]
    for place in ("domain", "registrar", "outbound_proxy"):
        assert remarks(parse(f'{account}{place} = "fritz.box"')) == []
    assert remarks(parse(f'{account}[sip]\nservers = ["192.0.2.1"]')) == []


def test_certificate_over_a_key_that_perhaps_nothing_keeps_is_remarked() -> None:
    own = "[tls]\nown_certificate = '-----BEGIN CERTIFICATE-----'\n"
    assert "StateDirectory=" in remarks(parse(own))[0]
    assert remarks(parse(f'{own}[provisioning]\nstate = "/var/lib/door"')) == []


def test_check_shows_control_characters_of_a_file_as_escapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "forged.toml"
    path.write_text('"\\u001b[2Jx\\nfile: no problems" = 1')
    assert cli.main(["check", str(path)]) == 1
    assert capsys.readouterr().out.startswith("\\x1b[2Jx\\nfile: no problems: unknown;")


def test_what_needs_another_pin_or_connection_is_told_from_what_does_not() -> None:
    usual = parse(SMALLEST)

    def same(more: str) -> bool:
        return same_parts(usual, parse(SMALLEST + more))

    assert same("[audio]\nspeaker_gain = -6")
    assert same('[peers.kitchen]\nuri = "sip:192.0.2.7"')
    assert same('[log]\nlevel = "debug"')
    assert not same('[log]\nevents = "/tmp/other"')
    assert not same("[sip]\nport = 5070")
    assert not same("[audio]\nrate = 16000")
    assert not same("[relays.gate]\npin = 5")


def test_reset_button_is_one_of_the_buttons() -> None:
    assert only(SMALLEST + '[provisioning]\nreset_button = "call2"').startswith(
        'provisioning.reset_button: no button "call2"; did you mean'
    )


def test_pin_is_needed_on_a_pi_only() -> None:
    text = "[peers.a]\nuri = 'sip:10.0.0.1'\n[leds.status]\n"
    assert only(text) == "leds.status.pin: missing; a GPIO number from 0 to 27"
    assert problems(text + '[board]\nkind = "fake"') == []


def test_pin_of_two_parts_is_a_problem_that_names_both() -> None:
    text = f"{SMALLEST}\n[leds.status]\npin = 25"
    assert (
        only(text) == "leds.status.pin: 25 is used by relays.door.pin already; a pin for each part"
    )


def test_short_code_needs_short_codes_at_a_button_peer_or_account() -> None:
    short = SMALLEST.replace("4711", "5")
    assert only(short).startswith("relays.door.codes[0]: only 1 digits; at least 4, or short_codes")
    allow = "short_codes = true\n"
    assert problems(short.replace("pin = 26\n", "pin = 26\n" + allow)) == []
    assert problems(short + "[peers.a]\nuri = 'sip:10.0.0.1'\n" + allow) == []
    assert problems(short.replace("[account]\n", "[account]\n" + allow)) == []


def test_same_code_on_two_relays_is_a_problem_that_does_not_show_it() -> None:
    found = only(f"{SMALLEST}[relays.gate]\npin = 22\ncodes = ['4711']")
    assert found == (
        "relays.gate.codes[0]: the same code as relays.door.codes[0]; "
        "a code that opens one relay only"
    )


def test_listening_on_tls_needs_certificate_and_key() -> None:
    found = problems(FAKE + '[sip]\ntransports = ["tls"]')
    assert [problem.partition(":")[0] for problem in found] == ["tls.certificate", "tls.key"]
    files = '[tls]\ncertificate = "a.pem"\nkey = "b.pem"\n'
    assert problems(FAKE + '[sip]\ntransports = ["tls"]\n' + files) == []
    own = "[tls]\nown_certificate = '''-----BEGIN CERTIFICATE-----\nMA==\n'''"
    assert problems(FAKE + '[sip]\ntransports = ["tls"]\n' + own) == []


@pytest.mark.parametrize("value", ['"hunter\\u00002"', "['hunter2']", "{ a = 'hunter2' }"])
def test_secret_of_a_wrong_kind_is_not_shown(value: str) -> None:
    text = SMALLEST.replace('"hunter22"', value)
    assert only(text).startswith("account.password: ")
    assert "hunter" not in only(text)


def test_wrong_code_is_not_shown() -> None:
    assert "47a1" not in only(SMALLEST.replace("4711", "47a1"))


def test_secrets_print_as_stars() -> None:
    settings = parse(SMALLEST)
    for text in (repr(settings), str(settings), f"{settings}", f"{settings.account!r}"):
        assert "hunter22" not in text
        assert "4711" not in text
        assert "***" in text
    assert f"{Secret('x')} {Secret('x')!s} {Secret('x')!r}" == "*** *** ***"
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)


def test_secret_compares_by_its_text() -> None:
    assert Secret("4711") == Secret("4711")
    assert Secret("4711") != Secret("4712")
    assert Secret("4711") != "4711"
    assert hash(Secret("4711")) == hash(Secret("4711"))
    assert Secret("4711").matches("4711")
    assert not Secret("4711").matches("471")
    assert not Secret("4711").matches("47\udc00")
    assert not Secret("")
    assert len(Secret("4711")) == 4


def test_settings_cannot_be_changed() -> None:
    settings = parse(SMALLEST)
    with pytest.raises(AttributeError):
        settings.sip.port = 5  # type: ignore[misc]


def test_target_is_a_number_a_peer_or_a_uri() -> None:
    settings = parse(SMALLEST + "[peers.kitchen]\nuri = 'sip:192.168.1.20:5062'")
    assert settings.target_uri("**9") == "sip:**9@fritz.box"
    assert settings.target_uri("#31#5") == "sip:%2331%235@fritz.box"
    assert settings.target_uri("kitchen") == "sip:192.168.1.20:5062"
    assert settings.target_uri("sip:a@b.de") == "sip:a@b.de"
    six = parse(SMALLEST.replace("fritz.box", "fd00::1"))
    assert six.target_uri("**9") == "sip:**9@[fd00::1]"
    assert settings.target_fault("kitchn").endswith('did you mean "kitchen"?')
    assert settings.target_fault("sip:a@b.de") == ""


def test_target_at_the_accounts_domain_needs_the_account() -> None:
    settings = parse(SMALLEST)
    assert settings.through_account("sip:**9@fritz.box")
    assert settings.through_account("sip:alice@FRITZ.BOX:5060;transport=tcp")
    assert not settings.through_account("sip:192.168.1.20")
    assert not parse(FAKE).through_account("sip:192.168.1.20")


def test_domain_is_the_registrars_or_what_the_network_offers_where_none_is_set() -> None:
    bare = FAKE + "[account]\nuser = 'door'\npassword = 'hunter22'\n"
    assert parse(bare).domain == ""
    assert parse(bare).target_uri("**9") == "**9"
    assert parse(bare).through_account("**9")
    assert parse(bare + "registrar = 'pbx:5070'").domain == "pbx"
    assert parse(bare + "[sip]\nservers = ['10.0.0.5', 'b.test']").domain == "10.0.0.5"
    assert parse(bare + "domain = 'a.test'\n[sip]\nservers = ['10.0.0.5']").domain == "a.test"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fritz.box", "fritz.box", None),
        ("fritz.box:5062", "fritz.box", 5062),
        ("10.0.0.1:5060", "10.0.0.1", 5060),
        ("[fd00::1]:5061", "fd00::1", 5061),
        ("[fd00::1]", "fd00::1", None),
        ("fd00::1", "fd00::1", None),
        ("pbx.example.org.", "pbx.example.org.", None),
    ],
)
def test_host_and_port_are_split(text: str, host: str, port: int | None) -> None:
    assert parse_host_port(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":5060",
        "a:0",
        "a:x",
        "a:65536",
        "a:000009999999",
        "[::1]5",
        "a..b",
        "a b",
        "ä.de",
        "1.2.3",
    ],
)
def test_wrong_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=";"):
        parse_host_port(text)


def test_port_range_is_split() -> None:
    assert parse_port_range("16384-16482") == (16384, 16482)


def test_documentation_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == settings_page.describe(), "run make pages"


def test_documentation_names_every_option_with_help() -> None:
    def check(cls: type[Section]) -> None:
        for field in msgspec.structs.fields(cls):
            parts = str(field.type)
            if cls is not Settings:
                assert "help='" in parts or 'help="' in parts, f"{cls.__name__}.{field.name}"

    for value in vars(tree).values():
        if isinstance(value, type) and issubclass(value, Section) and value is not Section:
            check(value)


def test_documented_smallest_file_is_valid() -> None:
    page = settings_page.describe()
    example = page.partition("```toml\n")[2].partition("```")[0]
    assert problems(example) == []


def test_every_country_has_its_tones() -> None:
    assert get_args(tree.Country) == tuple(RINGBACK)


@given(
    st.text("0159aZ%#*+-_.;=:@[]?,!'()&~/", max_size=24),
    st.sampled_from(["sip:", "sips:", "SIP:", "sip:a@", "sip:fritz.box;"]),
)
@example("@c", "sip:")
@example("a@c;;", "sip:")
@example("a@c;=x", "sip:")
@example("a@[::1]:5;lr", "sip:")
@example("@@c", "sip:")
@example("@@c", "sip:fritz.box;")
@example("[a0]", "sip:")
def test_uri_that_settings_accept_is_one_that_sip_can_use(rest: str, start: str) -> None:
    if not sip_uri_fault(start + rest):
        assert isinstance(parse_uri(start + rest), SipUri)


def test_defaults_are_valid_values() -> None:
    """A default written into a file is taken as it is."""
    settings = parse(SMALLEST)
    for name in ("sip", "audio", "door", "log", "control", "board"):
        section = getattr(settings, name)
        lines = [
            f"{key} = {as_toml(getattr(section, key))}"
            for key in section.__struct_fields__
            if getattr(section, key) is not None
        ]
        again = parse(SMALLEST + f"[{name}]\n" + "\n".join(lines))
        assert getattr(again, name) == section


toml_scalars = st.one_of(
    st.integers(-5, 70000), st.booleans(), st.floats(0, 1), st.text(max_size=8)
)
keys = st.sampled_from(
    ["account", "sip", "buttons", "call", "steps", "ring", "codes", "relays", "peers", "pin", "uri"]
)


@given(
    st.recursive(
        toml_scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_tree_of_values_gives_settings_or_problems(raw: object) -> None:
    loader = Loader()
    settings = loader.section(Settings, raw, "")
    loader.cross_check(settings)
    assert isinstance(settings, Settings)
    assert len(set(loader.problems)) == len(loader.problems)


@pytest.mark.parametrize("module", ["numpy", "pywebrtc_audio"])
@pytest.mark.parametrize("mode", ["aec3", "cascade"])
def test_canceller_whose_extra_is_missing_is_a_problem(
    mode: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'[audio]\necho = "{mode}"\n'
    assert problems(text) == []
    monkeypatch.setitem(sys.modules, module, None)
    assert only(text).startswith(f'audio.echo: "{mode}" needs the module {module}; install ')
    assert problems('[audio]\necho = "speex"\n') == []


def test_looking_for_a_canceller_loads_none() -> None:
    code = (
        "import sys; from doorstation.settings.reader import parse; parse('audio.echo = \"aec3\"');"
        "print(int('numpy' in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "0"


def test_import_is_free_of_network_and_loop() -> None:
    """The command line answers `check` quickly: no asyncio, no ssl."""
    code = "import sys, doorstation.settings.reader; print(int('asyncio' in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "0\n"


def test_a_peers_name_alone_lets_nobody_in() -> None:
    peer = '[board]\nkind = "fake"\n[peers.office]\nuri = "sip:door@office.example"\n'
    assert "does not prove who calls" in only(peer)
    assert problems(peer + "may_call = false\n") == []
    assert problems(peer + 'password = "long enough"\n') == []


def test_every_board_profile_can_be_chosen() -> None:
    known = tree.Board.__annotations__["profile"]
    assert set(get_args(get_args(known)[0])) == {"", *profile_names()}


KEY = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
OTHER_KEY = "A" * 43


def commands(**tables: str) -> str:
    text = '[board]\nkind = "fake"\n[peers.indoor]\nuri = "sip:10.0.0.7"\n[relays.door]\n'
    return text + "".join(f"[{name.replace('_', '.')}]\n{body}\n" for name, body in tables.items())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (commands(keys_office='public = "abc"\nrole = "admin"'), "not an Ed25519 key"),
        (commands(keys_office=f'public = "{KEY[:-1]}p"\nrole = "owner"'), "not an Ed25519 key"),
        (
            commands(keys_porter=f'public = "{KEY}"\nrole = "opener"\nopens = ["dor"]'),
            'no relay "dor"; did you mean "door"?',
        ),
        (
            commands(keys_office=f'public = "{KEY}"\nrole = "admin"\nopens = ["door"]'),
            "a key of role admin opens nothing",
        ),
        (
            commands(keys_office=f'public = "{KEY}"\nrole = "admin"\nscope = ["audio.contry"]'),
            'did you mean "country"?',
        ),
        (commands(commanders_office='password = "short"'), "5 characters; at least 12"),
        (commands(words_undo='sets = "audio.country"'), "a word of the door's own"),
        (commands(words_volume='sets = "audio.nothing"'), "no option 'nothing' in audio"),
        (commands(words_pass='sets = "account.password"'), "not by a typed word"),
        (commands(words_owner='sets = "provisioning.url"'), "not by a typed word"),
    ],
)
def test_who_may_order_what_is_checked(text: str, problem: str) -> None:
    assert problem in only(text)


def test_orders_are_off_until_somebody_sets_them_up() -> None:
    settings = parse(commands())
    assert (dict(settings.keys), dict(settings.commanders), settings.provisioning.first_use) == (
        {},
        {},
        False,
    )
    assert not problems(
        commands(
            keys_office=f'public = "{KEY}"\nrole = "admin"\nscope = ["audio", "door.max_call"]',
            keys_porter=f'public = "{OTHER_KEY}"\nrole = "opener"\nopens = ["door"]',
            commanders_office='password = "long enough word"',
            words_volume='sets = "audio.country"',
        )
    )
