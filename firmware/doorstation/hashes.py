"""MD5, SHA-256 and comparing in constant time, by the interpreter's own code.

hashlib and hmac load OpenSSL for the same: 4 MB of every door.
"""

from typing import TYPE_CHECKING

__all__ = ["compare_digest", "md5", "sha256"]

if TYPE_CHECKING:
    from hashlib import md5, sha256
    from hmac import compare_digest
else:
    try:
        from _md5 import md5
        from _operator import _compare_digest as compare_digest

        try:
            from _sha2 import sha256
        except ImportError:  # Python 3.11
            from _sha256 import sha256
    except ImportError:  # built without them
        from hashlib import md5, sha256
        from hmac import compare_digest
