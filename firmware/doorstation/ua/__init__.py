"""SIP as the door sees it: `agent.py` gives its events and takes its orders.

registration    registration.py
a call          outgoing.py, group.py (several phones at once); incoming.py; then call.py with
                session_timer.py
requests        requester.py (ours), inspect.py (theirs)
who may         policy.py, guesses.py (of passwords)
to the others   config.py (what it knows of the settings), events.py (what it tells)
"""
