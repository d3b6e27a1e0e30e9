"""The command line: arguments, and one call for each command.

Nothing heavy is imported before a command needs it: `ctl` and `check` answer at once.
"""

import argparse
import contextlib
import json
import math
import stat
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from doorstation import __version__, config_cli
from doorstation.errors import DoorstationError, SettingsError, TransportError
from doorstation.printable import printable

DEFAULT_CONFIG = Path("/etc/doorstation/doorstation.toml")
DEFAULT_SOCKET = "/run/doorstation/control.sock"
_SOCKET = f"of the station, {DEFAULT_SOCKET} unless given"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except SettingsError as error:
        return _complain(error.problems)
    except DoorstationError as error:
        return _complain([str(error)])
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _complain(lines: Sequence[str]) -> int:
    for line in lines:
        print(f"doorstation: {printable(line, lines=True)}", file=sys.stderr)
    return 1


class _Parser(argparse.ArgumentParser):
    """Help of one width. Else argparse asks for the terminal's at every argument, by a module that
    loads three compression libraries: half a megabyte of every door for as long as it runs."""

    def __init__(self, **options: Any) -> None:
        width = partial(argparse.HelpFormatter, width=80)
        super().__init__(formatter_class=width, **options)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="doorstation", description="A SIP door intercom: press, ring, talk, open."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    config = f"{DEFAULT_CONFIG} unless given"
    run = commands.add_parser("run", help="run the door station")
    run.add_argument("--config", type=Path, metavar="FILE", default=DEFAULT_CONFIG, help=config)
    run.set_defaults(run=_run)

    check = commands.add_parser("check", help="report every problem of a configuration")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=_check)

    doctor = commands.add_parser("doctor", help="find out what is wrong, part by part")
    parts = doctor.add_subparsers(required=True, metavar="PART")
    network = parts.add_parser("network", help="what the network offers, and what of it counts")
    network.add_argument("--config", type=Path, metavar="FILE", default=DEFAULT_CONFIG, help=config)
    network.add_argument("--json", action="store_true", help="one JSON object a line")
    network.set_defaults(run=_doctor_network)

    audio = parts.add_parser("audio", help="play a sweep; measure loudspeaker, microphone, echo")
    audio.add_argument(
        "--config", type=Path, metavar="FILE", help=f"{config}; with the fake board, none"
    )
    audio.add_argument("--board", choices=("real", "fake"), default="real")
    audio.add_argument(
        "--room", choices=("good", "loud", "howl", "broken-mic"), help="of the fake board"
    )
    audio.add_argument("--json", action="store_true", help="one JSON object")
    audio.add_argument("--plot", type=Path, metavar="FILE", help="write a picture (SVG)")
    audio.set_defaults(run=_doctor_audio)

    trial = commands.add_parser("try", help="a door and an indoor phone on this machine, no parts")
    trial.add_argument(
        "--port", type=_port, default=8090, help="of the page, 8090 unless given; 0: any free one"
    )
    trial.add_argument(
        "--runtime", type=Path, metavar="DIR", help="folder for door.sock and phone.sock"
    )
    trial.add_argument("--no-browser", action="store_true", help="only print the address")
    trial.set_defaults(run=_try)

    _add_keys(commands.add_parser("keys", help="keys that orders and files are signed with"))
    _add_command(commands.add_parser("command", help="order a door by SIP MESSAGE"))

    ctl = commands.add_parser("ctl", help="talk to the running station")
    ctl.add_argument("--socket", metavar="PATH", default=DEFAULT_SOCKET, help=_SOCKET)
    _add_ctl_commands(ctl.add_subparsers(required=True, metavar="COMMAND"))
    config_cli.add_commands(commands, DEFAULT_SOCKET)
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError("a number from 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)):  # JSON has no other number
            return seconds
    raise argparse.ArgumentTypeError("a number of seconds")


def _add_ctl_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=help_text)
        parser.set_defaults(run=_ctl, command=name)
        return parser

    status = command("status", "registration, calls, board state, versions")
    status.add_argument("--json", action="store_true", help="one JSON object")
    press = command("press", "press a button")
    press.add_argument("name", metavar="NAME", help="the button's in the settings")
    call = command("call", "call a number, a peer or a SIP URI")
    call.add_argument("uri", metavar="URI", help="or a number, or a peer's name")
    command("progress", "let the caller hear the door before it answers (183)")
    command("answer", "answer the call that rings")
    reject = command("reject", "refuse the call that rings")
    reject.add_argument(
        "code", metavar="CODE", nargs="?", type=int, default=603, help="603 unless given"
    )
    command("hangup", "end the call")
    command("hold", "put the far end on hold")
    command("resume", "take the far end off hold")
    mute = command("mute", "silence the door's microphone or its speaker until the call ends")
    mute.add_argument("part", choices=("microphone", "speaker"))
    mute.add_argument("state", choices=("on", "off"))
    record = command("record", "record a call for diagnosis: this one, or the next")
    record.add_argument("action", choices=("start", "stop"))
    dtmf = command("dtmf", "send digits to the far end")
    dtmf.add_argument("digits", metavar="DIGITS")
    message = command("message", "send a text by SIP MESSAGE")
    message.add_argument("uri", metavar="URI", help="or a number, or a peer's name")
    message.add_argument("text", metavar="TEXT")
    command("register", "register now")
    command("unregister", "take the registration back")
    contact = command("contact", "fake board: open or close a door contact")
    contact.add_argument("name", metavar="NAME")
    contact.add_argument("state", choices=("open", "closed"))
    reader = command("reader", "fake board: present a card or type a line of keys")
    reader.add_argument("name", metavar="NAME")
    reader.add_argument("value", metavar="VALUE")
    events = commands.add_parser("events", help="what happens, one line each")
    events.add_argument("--follow", action="store_true", help="go on until stopped")
    events.add_argument("--json", action="store_true", help="one JSON object a line")
    events.add_argument(
        "--kinds",
        default="record",
        help="with --follow: record, sip, state, levels; separated by commas; record unless given",
    )
    events.set_defaults(run=_events)


def _add_keys(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="make a key; prints its public half and its kid")
    new.add_argument("file", type=Path, metavar="FILE", help="where it is written, for you alone")
    new.set_defaults(run=_new_key)
    add = commands.add_parser("add", help="on the door: let a key give orders")
    add.add_argument("name", metavar="NAME", help="yours to choose")
    add.add_argument("--public", metavar="KEY", required=True, help="what `keys new` printed")
    add.add_argument("--role", required=True, choices=("viewer", "admin", "owner", "opener"))
    add.add_argument(
        "--opens", action="append", default=[], metavar="RELAY", help="that an opener may open"
    )
    add.add_argument(
        "--scope",
        action="append",
        default=[],
        metavar="OPTION",
        help="that an admin is kept to, or its section",
    )
    revoke = commands.add_parser("revoke", help="on the door: no order of this key any more")
    revoke.add_argument("name", metavar="NAME")
    shown = commands.add_parser("list", help="on the door: whose keys count, and its own identity")
    request = commands.add_parser(
        "request", help="on the door: print what your authority signs as its certificate (PEM)"
    )
    for one, command in (
        (add, "key_add"), (revoke, "key_revoke"), (shown, "keys"),
        (request, "certificate_request"),
    ):  # fmt: skip
        one.add_argument("--socket", metavar="PATH", default=DEFAULT_SOCKET, help=_SOCKET)
        one.set_defaults(run=_keys, command=command, config=None)


def _add_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", type=Path, metavar="FILE", required=True, help="that `keys new` made"
    )
    parser.add_argument("--to", metavar="URI", required=True, help="SIP URI of the door")
    parser.add_argument(
        "--door", metavar="UUID", required=True, help="which `keys list` shows there"
    )
    parser.add_argument(
        "--user", metavar="NAME", required=True, help="commander's name, proved to the door"
    )
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", required=True, help="his password"
    )
    parser.add_argument(
        "--account", metavar="URI", default="", help="to register first, at a server"
    )
    parser.add_argument("--account-password-file", type=Path, metavar="FILE", help="its password")
    parser.add_argument(
        "--within", type=_seconds, metavar="SECONDS", help="for a change to be confirmed"
    )
    ops = (
        "set", "check", "get", "confirm", "rollback", "history", "status", "fetch", "open",
        "reboot",
    )  # fmt: skip
    parser.add_argument("op", choices=ops)
    words = "key=value, key, number, relay, or URL and SHA-256 of a signed file"
    parser.add_argument("words", nargs="*", help=words)
    parser.set_defaults(run=_command)


def _new_key(options: argparse.Namespace) -> int:
    from doorstation.net.order_client import KeyFile

    public = KeyFile.new(options.file).key.public
    print(f"public {public.text}")
    print(f"kid    {public.kid}")
    return 0


def _keys(options: argparse.Namespace) -> int:
    from doorstation.net.control_client import call

    known = ("name", "public", "role", "opens", "scope")
    arguments = {key: value for key, value in vars(options).items() if key in known}
    result = call(options.socket, options.command, arguments)
    if options.command == "certificate_request":
        print(result, end="")
        return 0
    assert isinstance(result, dict)
    if options.command != "keys":
        return config_cli.follow(options, result)
    for name, value in result["door"].items():
        print(f"{name}  {value}")
    for name, key in result["keys"].items():
        more = " ".join((*key["opens"], *key["scope"]))
        print(printable(f"{name}  {key['kid']}  {key['role']}  {key['origin']}  {more}".rstrip()))
    for kid, rule in result["owners"].items():
        print(f"-  {kid}  owner of files  by {rule}")
    return 0


def _command(options: argparse.Namespace) -> int:
    from doorstation.net.order_client import KeyFile
    from doorstation.ordering import Way, read_password, run

    needed = {"confirm": 1, "rollback": 1, "open": 1, "fetch": 2}.get(options.op)
    if needed is not None and len(options.words) != needed:
        raise DoorstationError(f"{options.op} needs {needed} {'word' if needed == 1 else 'words'}")
    way = Way(
        KeyFile(options.key),
        options.to,
        options.door,
        options.user,
        read_password(options.password_file),
        options.account,
        read_password(options.account_password_file),
    )
    return run(way, options.op, options.words, options.within)


def _is_blank(config: Path) -> bool:
    """Whether this is a device out of its box: it has no file, and waits to be configured.

    Not where the file only cannot be reached: a door whose disk is not mounted, or whose folder it
    may not enter, would wait for whoever comes first.
    """
    if config != DEFAULT_CONFIG:
        return False
    try:
        config.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _run(options: argparse.Namespace) -> int:
    from doorstation.deferred import defer

    defer()
    from doorstation.settings.reader import read

    blank = _is_blank(options.config)
    local = {} if blank else read(options.config)
    if not blank and options.config.stat().st_mode & stat.S_IROTH:
        _complain(
            [f"{options.config}: codes and passwords that everybody here can read; chmod 600"]
        )
    from doorstation.station import run

    return run({"local": local})


def _doctor_network(options: argparse.Namespace) -> int:
    from doorstation.network import examine
    from doorstation.settings.reader import read

    local = {} if _is_blank(options.config) else read(options.config)
    return examine({"local": local}, as_json=options.json)


def _check(options: argparse.Namespace) -> int:
    from doorstation.settings.reader import load, remarks

    try:
        settings = load(options.file)
    except SettingsError as error:
        for problem in error.problems:
            print(printable(problem))
        return 1
    for remark in remarks(settings):
        print(f"remark: {remark}")
    print(f"{options.file}: no problems")
    return 0


def _doctor_audio(options: argparse.Namespace) -> int:
    from doorstation import doctor
    from doorstation.settings.reader import load
    from doorstation.settings.tree import Settings

    if options.room and options.board != "fake":
        raise DoorstationError("--room is a room of the fake board: --board fake --room ROOM")
    simulated = options.board == "fake"
    blank = simulated and options.config is None
    settings = Settings() if blank else load(options.config or DEFAULT_CONFIG)
    room = (options.room or "good") if simulated else ""
    return doctor.audio(settings, room=room, as_json=options.json, plot=options.plot)


def _try(options: argparse.Namespace) -> int:
    from doorstation.web.trial import run

    return run(options.port, options.runtime, browser=not options.no_browser)


def _ctl(options: argparse.Namespace) -> int:
    from doorstation.net.control_client import call

    known = ("name", "uri", "code", "digits", "state", "value", "text", "action", "part")
    arguments = {key: value for key, value in vars(options).items() if key in known}
    result = call(options.socket, options.command, arguments)
    if options.command == "status" and not options.json:
        _print_status(result)
    elif result not in (None, {}):
        print(json.dumps(result))
    return 0


def _print_status(status: object) -> None:
    assert isinstance(status, dict)
    registration = status["registration"]
    line = f"registration  {registration['state']}  {registration.get('why', '')}"
    print(printable(line.rstrip()))
    for call in status["calls"]:
        line = f"call {call['id']}  {call['state']}  {call['peer']}"
        if call["codec"]:
            line += f"  {call['codec']}  {_encryption(call['encryption'])}"
        if call["muted"]:
            line += f"  {' and '.join(call['muted'])} muted"
        if call["verdict"]:
            line += f"  {call['verdict']}"
        print(printable(line))
    if status["recording"]:
        print(f"recording  {status['recording']['state']}  {status['recording']['file'] or ''}")
    for name, relay in status["relays"].items():
        print(f"relay {name}  {'on' if relay['on'] else 'off'}  {relay['pulses']} pulses")
    for fault in status["faults"]:
        print(f"fault  {fault}")
    for name, led in status["leds"].items():
        print(f"led {name}  {led['pattern']}")
    configuration = status["configuration"]
    if configuration["pending"] is not None:
        waits = ", which waits for the end of a call" if configuration["waiting"] else ""
        print(f"configuration  change {configuration['pending']} is being tried{waits}")
    if configuration["fault"]:
        print(printable(f"configuration  fault: {configuration['fault']}"))
    if status["first_use"]:
        print(f"owner  {status['first_use']}")
    for name, version in status["versions"].items():
        print(f"{name}  {version}")


def _encryption(found: dict[str, object] | None) -> str:
    if found is None:
        return "not encrypted"
    readable = " in readable SIP" if found["keys_readable"] else ""
    return f"encrypted by {found['suite']}, keys by {str(found['keys']).upper()}{readable}"


def _events(options: argparse.Namespace) -> int:
    from doorstation.net.control_client import call, follow

    if not options.follow:
        for event in call(options.socket, "recent"):  # type: ignore[attr-defined]
            _print_event(event, options.json)
        return 0
    for event in follow(options.socket, options.kinds.split(",")):
        _print_event(event, options.json)
    raise TransportError("the station ended")


def _print_event(event: dict[str, object], as_json: bool) -> None:
    if as_json:
        line = json.dumps(event)
    else:
        line = printable("  ".join(f"{key}={value}" for key, value in event.items()), lines=True)
    print(line, flush=True)
