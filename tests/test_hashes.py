import hashlib
import subprocess
import sys

from doorstation import hashes


def test_hashes_are_those_of_hashlib() -> None:
    text = b"alice:example.org:secret" * 9
    assert hashes.md5(text, usedforsecurity=False).digest() == hashlib.md5(text).digest()
    assert hashes.sha256(text).digest() == hashlib.sha256(text).digest()
    assert hashes.compare_digest(text, bytes(text))
    assert not hashes.compare_digest(text, text[:-1])


def test_hashing_and_tokens_load_no_openssl() -> None:
    look = (
        "import sys, doorstation.hashes as h, doorstation.ids as i;"
        "h.sha256(h.md5(b'').digest()); i.SystemIds().token();"
        "print({'_hashlib', 'hashlib', 'hmac', 'secrets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
