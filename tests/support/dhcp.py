"""A real DHCP server in a lab: Debian's dnsmasq, with the options that a test hands in."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.lab import Lab, Process


@contextmanager
def dhcp_server(lab: Lab, folder: Path, *options: str) -> Iterator[Process]:
    """dnsmasq with `options` in its own words, e.g. "dhcp-option-force=120,10.0.0.1"."""
    program = shutil.which("dnsmasq", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program is not None, "dnsmasq is needed: apt-get install dnsmasq-base"
    address, address6 = lab.address(), lab.address(ipv6=True)
    network, network6 = address.rpartition(".")[0], address6.rpartition(":")[0]
    lines = [
        "no-daemon", "port=0", "no-ping", "log-dhcp", "interface=eth0", "bind-interfaces",
        "user=root", f"dhcp-leasefile={folder}/leases", "dhcp-authoritative",
        f"dhcp-range={network}.200,{network}.240,255.255.255.0,2m",
        f"dhcp-range={network6}:f00,{network6}:fff,64,2m", *options,
    ]  # fmt: skip
    (folder / "dnsmasq.conf").write_text("\n".join(lines) + "\n")
    command = (program, "-C", str(folder / "dnsmasq.conf"))
    with lab.program(*command, directory=folder, log="dnsmasq.log") as server:
        server.ready(lambda: "started, version" in server.log_text(), "has started")
        yield server


@contextmanager
def kea(lab: Lab, folder: Path, address: str, *options: Mapping[str, object]) -> Iterator[Process]:
    """ISC's Kea at `address`, with DHCPv4 options in its own words."""
    network = address.rpartition(".")[0]
    config = {
        "Dhcp4": {
            "interfaces-config": {
                "interfaces": [f"eth0/{address}"], "dhcp-socket-type": "raw", "re-detect": False
            },
            "lease-database": {"type": "memfile", "persist": False},
            "subnet4": [
                {
                    "id": 1, "subnet": f"{network}.0/24",
                    "pools": [{"pool": f"{network}.200-{network}.240"}],
                }
            ],
            "option-data": list(options),
            "loggers": [
                {
                    "name": "kea-dhcp4", "severity": "INFO",
                    "output_options": [{"output": "stdout"}],
                }
            ],
        }
    }  # fmt: skip
    (folder / "kea.json").write_text(json.dumps(config))
    own = {"KEA_PIDFILE_DIR": str(folder), "KEA_LOCKFILE_DIR": str(folder)}
    command = ("/usr/sbin/kea-dhcp4", "-c", str(folder / "kea.json"))
    with lab.program(*command, directory=folder, log="kea.log", environment=own) as server:
        server.ready(lambda: "DHCP4_STARTED" in server.log_text(), "has started")
        yield server


NETWORK_MANAGER = """
mount -t tmpfs none /run
mount -t tmpfs none /var/lib/NetworkManager
mount -t sysfs -o ro none /sys  # else it waits for udev to know its devices
mkdir /run/NetworkManager
ip addr flush dev "$2"  # what has an address is somebody else's to it
dbus-daemon --config-file="$1/bus.conf" --nofork --nopidfile & bus=$!
trap 'kill $manager $bus' TERM
until [ -S /run/bus ]; do sleep 0.05; done
DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/bus \\
    NetworkManager --debug --config="$1/manager.conf" --config-dir=/run/none & manager=$!
wait; wait
"""

BUS = """
<busconfig>
  <type>system</type><listen>unix:path=/run/bus</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/>
  </policy>
</busconfig>
"""


@contextmanager
def network_manager(lab: Lab, folder: Path) -> Iterator[Process]:
    """Debian's NetworkManager with a bus of its own; on return it has a lease on our side."""
    (folder / "bus.conf").write_text(BUS)
    (folder / "manager.conf").write_text(f"""
[main]
plugins=keyfile
dhcp=internal
dns=none
rc-manager=unmanaged
hostname-mode=none
no-auto-default=*
[keyfile]
path={folder}/connections
unmanaged-devices=*,except:interface-name:{lab.interface}
[device-ours]
match-device=interface-name:{lab.interface}
managed=1
""")
    connection = folder / "connections" / "door.nmconnection"
    connection.parent.mkdir()
    connection.write_text(f"""
[connection]
id=door
uuid=8e2b1c34-0000-4000-8000-b827eb010203
type=ethernet
interface-name={lab.interface}
[ipv4]
method=auto
[ipv6]
method=disabled
""")
    connection.chmod(0o600)  # it uses no other
    command = (
        "unshare",
        "--mount",
        "--uts",
        "sh",
        "-c",
        NETWORK_MANAGER,
        "sh",
        str(folder),
        lab.interface,
    )
    paths = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    with lab.program(
        *command, directory=folder, log="manager.log", environment=paths, here=True
    ) as manager:
        manager.ready(lambda: "Activation: successful" in manager.log_text(), "has a lease", 20)
        yield manager
