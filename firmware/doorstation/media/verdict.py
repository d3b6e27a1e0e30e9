"""One plain sentence for each call: what was wrong with its sound, the worst first, or that it was
good. Thresholds are where people begin to complain, or where a part does not do its work.
"""

from collections.abc import Iterator
from typing import Final

from doorstation.media.session import CallStatistics

TOO_SHORT: Final = 2.0
"""Seconds: of less, nothing can be said."""

NOTICED_LOSS: Final = 2.0
"""Percent: concealment hides less (G.107: the opinion falls by 0.2)."""

DELAYED: Final = 600.0
"""Milliseconds there and back, with both jitter buffers, from which people talk at the same time:
twice the 300 ms of ITU-T G.114 would be the limit for planning."""

ECHO_HEARD: Final = 20.0
"""dB: an echo that is turned down less is heard."""

DEAD_MICROPHONE: Final = -75.0
"""dBFS: the noise of any microphone that works is louder."""

CARD_MISSED: Final = 1.0
"""Seconds."""

STUMBLE_EVERY: Final = 10.0
"""Seconds of a call that forgive one xrun: a short gap, heard if one listens for it."""

SILENT_FAR_END: Final = -72.0
"""dBFS: digital silence in A-law, which has no zero, is 8 of 32768: -72.2."""


def verdict(of: CallStatistics) -> str:
    """What was wrong, joined by "; ", or "good", with the echo's figure where it is known."""
    if of.seconds < TOO_SHORT:
        return "too short to tell"
    faults = "; ".join(_faults(of))
    if faults:
        return faults
    return "good" if of.echo_db is None else f"good; echo {of.echo_db:.0f} dB down"


def _faults(of: CallStatistics) -> Iterator[str]:
    if of.card_lost_seconds >= CARD_MISSED:
        yield f"no sound card for {of.card_lost_seconds:.0f} s"
    if of.overruns + of.underruns > of.seconds / STUMBLE_EVERY:
        yield f"the sound card stumbled {of.overruns + of.underruns} times"
    if not of.received:
        yield _why_nothing(of)
    if not of.sent:
        yield "the door never sent sound"
    elif of.microphone_dbfs < DEAD_MICROPHONE:
        yield "the microphone heard nothing"
    if of.received:
        if of.loudspeaker_dbfs < SILENT_FAR_END:
            yield "the phone sent silence"
        yield from _on_the_way(of)
    if of.echo_late:
        yield "the echo was not cancelled: its reference came late"
    elif of.echo_db is not None and of.echo_db < ECHO_HEARD:
        yield f"echo only {of.echo_db:.0f} dB down"


def _why_nothing(of: CallStatistics) -> str:
    if of.unauthentic:
        return "nothing that the phone sent could be decrypted"
    if of.dropped:
        return "nothing that came was the phone's agreed sound"
    return "the phone never sent sound"


def _on_the_way(of: CallStatistics) -> Iterator[str]:
    lost = _percent(of.lost, of.received + of.lost)
    if lost >= NOTICED_LOSS:
        yield f"{lost:.0f} % lost on the way in"
    late = _percent(of.late, of.received + of.lost)
    if late >= NOTICED_LOSS:
        yield f"{late:.0f} % came too late"
    theirs = _percent(of.remote_lost or 0, of.sent)
    if theirs >= NOTICED_LOSS:
        yield f"the phone hears {theirs:.0f} % loss"
    too_late = of.remote_discarded_percent or 0.0
    if too_late >= NOTICED_LOSS:
        yield f"{too_late:.0f} % came too late at the phone"
    delay = (of.round_trip_ms or 0.0) + of.delay_ms + (of.remote_delay_ms or 0)
    if delay >= DELAYED:
        yield f"{delay:.0f} ms there and back"


def _percent(part: int, whole: int) -> float:
    """At most 100: what a phone reports need not fit what was sent."""
    return min(100.0, 100.0 * part / whole) if whole else 0.0
