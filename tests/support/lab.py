"""A network of its own for peers that a test starts: nothing outlives the test, no port clashes.

A lab is a Linux network namespace with a PID namespace around it, joined to the test's own network
by one pair of virtual Ethernet ends. The station under test uses `Lab.station` on this side; each
peer gets an address of its own on the other, so that every peer may sit on port 5060. All of it
hangs on one pipe to this process: when the test process ends, however it ends, the kernel kills
what runs in the lab and takes the network down.

All calls block, briefly, and may be made from any thread: in an asyncio test whose loop also runs
the station, wrap those that wait for the station in `asyncio.to_thread`.
"""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str, seconds: float = 5.0) -> T:
    """Return the first true value of `condition`; AssertionError naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


class Process:
    """A program in the lab, its output in a file."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str, log: Path, wrapped: bool) -> None:
        self._popen = popen
        self._wrapped = wrapped
        self.name = name
        self.log = log

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def log_text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait(self, seconds: float) -> int:
        """Wait for its own end; AssertionError with the log's tail when it does not come."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} still runs after {seconds:g} s:\n{self.tail()}"
            ) from None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program; nothing when it has ended."""
        pid = self._popen.pid
        if self._wrapped:
            # The wrapper has to outlive its child, to reap it: an orphan's new parent may not,
            # and a zombie keeps the whole namespace.
            children = Path(f"/proc/{pid}/task/{pid}/children")
            found = eventually(
                lambda: self._popen.poll() is not None or children.read_text(), "it has started"
            )
            if found is True:
                return
            pid = int(found)
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def stop(self, seconds: float = 5.0) -> None:
        """Ask it to end, then insist."""
        self.send(signal.SIGTERM)
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and all its children at once; their ports are free on return."""

        def gone() -> bool:
            running = self._running()
            for pid in running:  # again and again: it may be forking
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not running

        eventually(gone, f"all of {self.name} ended")
        self._popen.wait()

    def _running(self) -> list[int]:
        """The program and its children, without the wrapper, which ends and reaps by itself."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                pid, _, rest = stat.read_text().partition(" ")
                state, _, group = rest.rpartition(")")[2].split()[:3]
                if int(group) == self._popen.pid and state not in "ZX":
                    found.append(int(pid))
        if self._wrapped and self._popen.pid in found:
            found.remove(self._popen.pid)
        return found

    def ready(self, condition: Callable[[], T], what: str, seconds: float = 10.0) -> T:
        """As `eventually`, but fails at once, with the log, when the program ends before."""

        def running() -> T:
            value = condition()
            if not value and self.returncode is not None:
                raise AssertionError(f"{self.name} ended with {self.returncode}:\n{self.tail()}")
            return value

        try:
            return eventually(running, f"{self.name}: {what}", seconds)
        except AssertionError as fault:
            raise AssertionError(f"{fault}\n{self.tail()}") from None

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])


class Lab:
    """One network: `station` is this side's address, `address()` a fresh one for a peer."""

    def __init__(self, number: int, namespace: Sequence[str]) -> None:
        self._namespace = namespace
        self._next = itertools.count(2)
        self._network = f"198.18.{number}"  # RFC 2544: never a real neighbour
        self._network6 = f"fd18:{number:x}::"
        self.station = f"{self._network}.1"
        self.station6 = f"{self._network6}1"
        self.interface = f"ds{number}"

    def address(self, ipv6: bool = False) -> str:
        """A new address on the peers' side, up at once."""
        host = next(self._next)
        if ipv6:
            address = f"{self._network6}{host:x}"
            self.run("ip", "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        else:
            address = f"{self._network}.{host}"
            self.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        return address

    def media_ports(self, address: str) -> tuple[int, int]:
        """UDP ports, first and last, for the peer at `address`: what it sends from them carries it.

        A program that binds its sound to no address would else send from the first one here.
        """
        ipv6 = ":" in address
        number = int(address.rpartition(":")[2], 16) if ipv6 else int(address.rpartition(".")[2])
        ports = 10000 + 80 * number, 10079 + 80 * number
        table = str(1000 + number)
        ip = ("ip", "-6") if ipv6 else ("ip",)
        net = f"{self._network6}/64" if ipv6 else f"{self._network}.0/24"
        self.run(*ip, "route", "replace", net, "dev", "eth0", "src", address, "table", table)
        # 17: a bare Debian has no /etc/protocols to know "udp" by.
        rule = ("ipproto", "17", "sport", f"{ports[0]}-{ports[1]}", "table", table)
        if f"lookup {table}" not in self.run(*ip, "rule"):
            self.run(*ip, "rule", "add", *rule)
        return ports

    def run(self, *command: str, seconds: float = 20.0) -> str:
        """Run a short command on the peers' side; its output, or AssertionError."""
        return _run(*self._namespace, *command, seconds=seconds)

    def cut(self) -> None:
        """Pull the cable: packets of both sides are lost until `mend`."""
        self.run("ip", "link", "set", "eth0", "down")

    def mend(self) -> None:
        self.run("ip", "link", "set", "eth0", "up")

    @contextmanager
    def program(
        self,
        *command: str,
        directory: Path,
        log: str,
        environment: Mapping[str, str] | None = None,
        here: bool = False,
    ) -> Iterator[Process]:
        """Start a program in the lab (`here`: on the station's side); stopped at the end."""
        path = directory / log
        with path.open("wb") as output:
            process = Process(
                subprocess.Popen(
                    [*(() if here else self._namespace), *command],
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if environment is None else {**os.environ, **environment},
                    start_new_session=True,
                ),
                Path(command[0]).name,
                path,
                wrapped=not here,
            )
        try:
            yield process
        finally:
            process.stop()


@contextmanager
def lab() -> Iterator[Lab]:
    """Make a network of its own; needs CAP_NET_ADMIN, which `make test` gives."""
    with ExitStack() as stack:
        holder = stack.enter_context(
            subprocess.Popen(
                [
                    "unshare",
                    "--net",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "sh",
                    "-c",
                    "echo; exec cat",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )
        stack.callback(_close, holder.stdin)
        assert holder.stdout is not None
        assert holder.stderr is not None
        if not holder.stdout.readline():
            why = holder.stderr.read().decode().strip()
            raise AssertionError(f"no network namespace ({why}): run the tests through `make test`")
        number = _join(holder.pid)
        inside = (
            "nsenter",
            f"--net=/proc/{holder.pid}/ns/net",
            f"--pid=/proc/{holder.pid}/ns/pid_for_children",
            "--",
        )
        made = Lab(number, inside)
        for command in ("link set lo up", "link set eth0 up"):
            made.run("ip", *command.split())
        _run("ip", "addr", "add", f"{made.station}/24", "dev", made.interface)
        _run("ip", "link", "set", made.interface, "up")
        _run("ip", "addr", "add", f"{made.station6}/64", "dev", made.interface, "nodad")
        eventually(lambda: "state UP" in _run("ip", "link", "show", made.interface), "a cable")
        yield made
        # Now, not in the kernel's own time: stations of other labs hear of it and move their calls.
        _run("ip", "link", "delete", made.interface)


def _join(holder: int) -> int:
    """Make the cable into the namespace of `holder`; its name is what claims the number."""
    for number in range(1, 255):
        command = f"ip link add ds{number} type veth peer name eth0 netns {holder}"
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return number
        if "File exists" not in done.stderr:
            raise AssertionError(f"{command}: {done.stderr.strip()}")
    raise AssertionError("254 labs run already")


def _run(*command: str, seconds: float = 20.0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}".strip())
    return done.stdout


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe is not None
    pipe.close()
