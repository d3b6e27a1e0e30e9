"""One plain sentence for each call."""

import pytest
from doorstation.media.session import CallStatistics
from doorstation.media.verdict import verdict
from msgspec.structs import replace

GOOD = CallStatistics(
    seconds=60.0,
    codec="G722",
    encryption="",
    remote="192.0.2.1:4000",
    sent=3000,
    received=3000,
    lost=3,
    late=2,
    duplicated=0,
    concealed=5,
    dropped=0,
    unauthentic=0,
    jitter_ms=2.0,
    delay_ms=40.0,
    microphone_dbfs=-35.0,
    loudspeaker_dbfs=-30.0,
    round_trip_ms=30.0,
    burst_loss_percent=0.0,
    burst_ms=0.0,
    gap_loss_percent=0.1,
    mos_lq=4.4,
    mos_cq=4.3,
    echo_db=None,
    echo_late=False,
    overruns=1,
    underruns=3,
    card_lost_seconds=0.2,
    remote_lost=1,
    remote_jitter_ms=1.0,
    remote_discarded_percent=None,
    remote_delay_ms=None,
    remote_mos=None,
    remote_echo_db=None,
)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({}, "good"),
        ({"echo_db": 38.2}, "good; echo 38 dB down"),
        ({"round_trip_ms": None, "remote_lost": None}, "good"),
        ({"seconds": 1.9, "received": 0}, "too short to tell"),
        ({"received": 0}, "the phone never sent sound"),
        ({"received": 0, "dropped": 7}, "nothing that came was the phone's agreed sound"),
        (
            {"received": 0, "dropped": 7, "unauthentic": 90},
            "nothing that the phone sent could be decrypted",
        ),
        ({"sent": 0, "remote_lost": None}, "the door never sent sound"),
        ({"microphone_dbfs": -76.0}, "the microphone heard nothing"),
        ({"loudspeaker_dbfs": -100.0}, "the phone sent silence"),
        ({"received": 2640, "lost": 360}, "12 % lost on the way in"),
        ({"received": 2945, "lost": 55}, "good"),
        ({"late": 150}, "5 % came too late"),
        ({"remote_lost": 150}, "the phone hears 5 % loss"),
        ({"remote_lost": 0x7FFFFF}, "the phone hears 100 % loss"),
        ({"remote_lost": -3}, "good"),
        ({"remote_discarded_percent": 4.0}, "4 % came too late at the phone"),
        (
            {"round_trip_ms": 400.0, "delay_ms": 60.0, "remote_delay_ms": 150},
            "610 ms there and back",
        ),
        ({"overruns": 20, "underruns": 17}, "the sound card stumbled 37 times"),
        ({"card_lost_seconds": 12.4}, "no sound card for 12 s"),
        ({"echo_db": 12.3}, "echo only 12 dB down"),
        (
            {"echo_db": 0.0, "echo_late": True},
            "the echo was not cancelled: its reference came late",
        ),
        (
            {"received": 2640, "lost": 360, "remote_lost": 150},
            "12 % lost on the way in; the phone hears 5 % loss",
        ),
        ({"received": 0, "sent": 0}, "the phone never sent sound; the door never sent sound"),
    ],
)
def test_a_call_is_told_in_one_sentence(seen: dict[str, object], said: str) -> None:
    assert verdict(replace(GOOD, **seen)) == said
