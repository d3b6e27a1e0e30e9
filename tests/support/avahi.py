"""A real multicast DNS responder in a lab: Debian's avahi-daemon, as Linux computers run it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.lab import Lab, Process

_START = """
mount -t tmpfs none /run  # its process id
mount --bind "$1" /etc/avahi/services
exec "$2" --no-drop-root --no-rlimits --no-chroot --file="$1/avahi.conf"
"""
_SERVICE = """<?xml version="1.0"?>
<!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group><name>{name}</name><service>
<type>{kind}</type><port>{port}</port><txt-record>{text}</txt-record>
</service></service-group>
"""


@contextmanager
def avahi(
    lab: Lab, folder: Path, host: str, kind: str, port: int, text: str, *, ipv4: bool = True
) -> Iterator[Process]:
    """`host`.local, offering one service, by IPv6 alone unless `ipv4`; announced on return."""
    program = shutil.which("avahi-daemon", path="/usr/sbin:/usr/bin")
    assert program is not None, "avahi-daemon is needed: apt-get install avahi-daemon"
    folder.mkdir()
    (folder / "avahi.conf").write_text(
        f"[server]\nhost-name={host}\nuse-ipv4={'yes' if ipv4 else 'no'}\nenable-dbus=no\n"
    )
    name = f"Files. Of {host}"  # a dot and a blank, as people's names for services have them
    (folder / "files.service").write_text(
        _SERVICE.format(name=name, kind=kind, port=port, text=text)
    )
    command = ("unshare", "--mount", "sh", "-c", _START, "sh", str(folder), program)
    with lab.program(*command, directory=folder, log="avahi.log") as process:
        done = f'Service "{name}" (/etc/avahi/services/files.service) successfully established'
        process.ready(lambda: done in process.log_text(), "has announced its service")
        yield process
