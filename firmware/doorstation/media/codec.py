"""What every codec of a call can do. One object serves one payload type of one call."""


class Codec:
    """Mono S16 at `rate` Hz to payloads and back; `clock`: RTP ticks a second.

    The two differ: G.722 samples at 16 kHz and counts 8000 ticks a second, Opus always 48000.
    Codecs that remember want payloads in the order of their sequence numbers: `decode` what is
    there, `recover` or `conceal` what is not.
    """

    __slots__ = ()

    rate: int
    clock: int

    def encode(self, pcm: bytes) -> bytes:
        """The payload of one packet, as long as `packet_ms` allows; b"": send none (DTX)."""
        raise NotImplementedError

    def decode(self, payload: bytes) -> bytes:
        """The samples of a payload of any length. Raises MalformedPacket."""
        raise NotImplementedError

    def samples(self, payload: bytes) -> int:
        """How many samples `decode` will give, from the payload's head alone; 0: malformed."""
        raise NotImplementedError

    def packet_ms(self, wanted: int) -> int:
        """The longest packet of at most `wanted` ms that the codec writes and a network carries."""
        return wanted

    def conceal(self, count: int) -> bytes | None:
        """`count` samples for sound that is missing, or was never sent (DTX).

        None: this codec knows nothing better than what any can do with the last samples.
        """
        return None

    def recover(self, payload: bytes, count: int) -> bytes | None:
        """The `count` samples just before `payload`, which is to be decoded next, out of what it
        repeats of them. None: this codec repeats nothing.
        """
        return None

    def expect_loss(self, percent: float) -> None:
        """What the far end says that it loses: how much to repeat in what is sent."""
