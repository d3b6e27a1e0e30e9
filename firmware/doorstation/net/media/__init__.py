"""The media thread: the only place where sockets, the sound card and a call's audio meet.

thread.py   what the loop sees: `MediaThread`, and a `MediaSession` for each call
events.py   what the thread tells the loop
worker.py   the thread: one turn each 20 ms
leg.py      one call in it
card.py     the sound card, supervised
ports.py    the calls' sockets
"""
