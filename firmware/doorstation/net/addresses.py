"""Addresses and faults as sockets have them, and as SIP does."""

import os
import socket


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def sockaddr(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """For the socket calls. A link-local "fe80::1%2" is taken apart: else Python asks resolvers."""
    if "%" in host:
        plain, _, scope = host.partition("%")
        number = scope.isascii() and scope.isdigit()  # "²" is a digit, too, and no number
        return plain, port, 0, int(scope) if number else socket.if_nametoindex(scope)
    return host, port


def remote_of(source: tuple[str, int] | tuple[str, int, int, int]) -> tuple[str, int]:
    """The far end of a socket address; a link-local one keeps its interface: "fe80::1%2"."""
    host = without_zone(source[0])
    if len(source) == 4 and source[3]:
        host = f"{host}%{source[3]}"
    return host, source[1]


def without_zone(host: str) -> str:
    return host.partition("%")[0]


def packed_address(host: str) -> bytes | None:
    """Its 4 or 16 bytes; None: no address, but a name."""
    try:
        return socket.inet_pton(family_of(host), without_zone(host))
    except OSError:
        return None


def is_address(host: str) -> bool:
    return packed_address(host) is not None


def is_ours(host: str) -> bool:
    """Whether this machine has the address now."""
    if host.startswith("fe80:"):
        return True  # binding would need the interface; link-local addresses go with the link
    try:
        with socket.socket(family_of(host), socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def in_words(fault: BaseException) -> str:
    """What happened, in words and without numbers of the C library."""
    verify = getattr(fault, "verify_message", "")
    if verify:
        return str(verify)
    reason = getattr(fault, "reason", None)  # of an ssl.SSLError: WRONG_VERSION_NUMBER
    if isinstance(fault, OSError) and isinstance(reason, str):
        return reason.replace("_", " ").lower()
    if isinstance(fault, OSError) and fault.errno:
        return os.strerror(fault.errno)
    return str(fault) or type(fault).__name__
