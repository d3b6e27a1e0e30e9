"""The error family. Busy, declined, no answer and time-out are outputs, never exceptions."""


class DoorstationError(Exception):
    """Any fault this firmware names itself."""


class ProtocolError(DoorstationError):
    """The peer is wrong; `status` is the SIP status to answer (RFC 3261 §21)."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class MalformedPacket(ProtocolError):
    """A media packet or description that cannot be read."""


class TransportError(DoorstationError):
    """The network fails: unreachable, refused, closed, no name."""


class StoreError(DoorstationError):
    """The disk fails: full, read-only, not ours."""


class SettingsError(DoorstationError):
    """One or more settings are wrong; `problems` lists each as 'key: what would be valid'."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
