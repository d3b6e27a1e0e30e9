"""SRTP a second time, straight from RFC 3711 and RFC 7714, to compare libsrtp with.

Proved by the vectors of both RFCs itself, which give session keys that libsrtp takes none of.
"""

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

ENCRYPTION, AUTHENTICATION, SALT = 0, 1, 2
RTP, RTCP = 0, 3
"""What RFC 3711 §4.3.2 adds to the label of a key."""


def key_stream(key: bytes, iv: bytes, length: int) -> bytes:
    return Cipher(AES(key), CTR(iv)).encryptor().update(bytes(length))


def derive(key: bytes, salt: bytes, label: int, length: int) -> bytes:
    """A session key (§4.3.1), key derivation rate 0; a salt of 96 bits is padded (RFC 7714 §11)."""
    x = bytearray(salt.ljust(14, b"\0"))
    x[7] ^= label
    return key_stream(key, bytes(x) + b"\0\0", length)


def cm_iv(salt: bytes, ssrc: bytes, index: int) -> bytes:
    """§4.1.1: (salt * 2^16) XOR (SSRC * 2^64) XOR (index * 2^16)."""
    number = int.from_bytes(salt, "big") << 16
    number ^= int.from_bytes(ssrc, "big") << 64
    return (number ^ (index << 16)).to_bytes(16, "big")


def xored(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def cm_protected(
    master: bytes, packet: bytes, roc: int, tag: int, *, rtcp_index: int | None = None
) -> bytes:
    """A packet of AES_CM_128_HMAC_SHA1_80 or _32; of a compound RTCP packet with `rtcp_index`."""
    key, salt = master[:16], master[16:]
    kind = RTP if rtcp_index is None else RTCP
    session_key = derive(key, salt, kind + ENCRYPTION, 16)
    session_salt = derive(key, salt, kind + SALT, 14)
    auth_key = derive(key, salt, kind + AUTHENTICATION, 20)
    if rtcp_index is None:
        header, ssrc, trailer = 12, packet[8:12], struct.pack("!I", roc)
        index = roc << 16 | int.from_bytes(packet[2:4], "big")
    else:
        header, ssrc, index = 8, packet[4:8], rtcp_index
        trailer = struct.pack("!I", 1 << 31 | rtcp_index)
    payload = packet[header:]
    stream = key_stream(session_key, cm_iv(session_salt, ssrc, index), len(payload))
    encrypted = packet[:header] + xored(payload, stream)
    mac = hmac.digest(auth_key, encrypted + trailer, hashlib.sha1)[:tag]
    return encrypted + (trailer if rtcp_index is not None else b"") + mac


def gcm_rtp(key: bytes, salt: bytes, packet: bytes, roc: int) -> bytes:
    """RFC 7714 §8.1, with session key and salt."""
    iv = b"\0\0" + packet[8:12] + struct.pack("!I", roc) + packet[2:4]
    return packet[:12] + AESGCM(key).encrypt(xored(iv, salt), packet[12:], packet[:12])


def gcm_rtcp(key: bytes, salt: bytes, packet: bytes, index: int) -> bytes:
    """RFC 7714 §9.1, encrypted, with session key and salt."""
    word = struct.pack("!I", 1 << 31 | index)
    iv = b"\0\0" + packet[4:8] + b"\0\0" + struct.pack("!I", index)
    sealed = AESGCM(key).encrypt(xored(iv, salt), packet[8:], packet[:8] + word)
    return packet[:8] + sealed + word


def gcm_protected(
    master: bytes, packet: bytes, roc: int, *, rtcp_index: int | None = None
) -> bytes:
    key, salt = master[:-12], master[-12:]
    kind = RTP if rtcp_index is None else RTCP
    session_key = derive(key, salt, kind + ENCRYPTION, len(key))
    session_salt = derive(key, salt, kind + SALT, 12)
    if rtcp_index is None:
        return gcm_rtp(session_key, session_salt, packet, roc)
    return gcm_rtcp(session_key, session_salt, packet, rtcp_index)
