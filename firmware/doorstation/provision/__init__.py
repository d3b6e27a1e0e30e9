"""Configuration without a visit to the door: what counts, and what becomes of a change.

settings        layers.py, configuration.py (a change and its end), state.py
orders          commander.py (who asks), orders.py (what), pointers.py (where it is wrong),
                outbox.py (results)
files           discovery.py (where), ua_profile.py, mdns.py; fetch.py, tftp.py; files.py (whose)
keys            jws.py (who signs), identity.py (the door's own),
                claim.py (the code on its label)
SIP servers     servers.py
"""
