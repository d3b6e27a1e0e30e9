"""The hardware of a door station, usable alone on a bench.

what it can do  interfaces.py; profile.py knows the boards in profiles/
pins            gpio.py on gpiod_factory.py; debounce.py, patterns.py, alarm.py; rest.py
sound           alsa.py with playback_queue.py; check_card.py
serial ports    serial_reader.py with framing.py
no hardware     fake.py, fake_room.py
for all         closing.py
"""
