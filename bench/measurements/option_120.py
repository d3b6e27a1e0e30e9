"""Option 120.

A door with user and password only starts without a cable. From the cable's coming to the door being
registered at what dnsmasq serves as option 120, Kamailio's challenge and answer included; the
median.
"""

import datetime
import time

from bench.run import Bench
from bench.table import OURS, Row, Target, median
from tests.support.dhcp import dhcp_server
from tests.support.peers import kamailio
from tests.support.station import station

PASSWORD = "of-the-door"
BARE = {"account.user": "door", "account.password": PASSWORD, "sip.port": 0}
"""Port 5060 of its address is the far end's."""


def measure(bench: Bench) -> tuple[list[Row], list[str]]:
    lab, address = bench.lab, bench.lab.address()
    folder = bench.folder / "option-120"
    folder.mkdir()
    took = []
    with (
        kamailio(lab, folder / "pbx", {"door": PASSWORD}, domain=address, address=address),
        dhcp_server(lab, folder, f"dhcp-option-force=120,{address}"),
    ):
        for number in range(bench.count(11, 3)):
            lab.cut()
            try:
                with station(lab, folder / str(number), BARE) as door:
                    door.process.ready(lambda: "no interface is up" in door.process.log_text(), "")
                    at = time.time()
                    lab.mend()
                    event = door.wait_event("registration", registered=True)
                    took.append(datetime.datetime.fromisoformat(event["at"]).timestamp() - at)
            finally:
                lab.mend()
    target = Target(0.3)
    return [Row("cable to registered through option 120", "s", {OURS: median(took)}, target)], []
