"""The only code that writes to disk; what a card brings is read here, too.

configuration   state.py, audit.py
the door's key  identity.py, tpm.py
what happened   events.py, recordings.py
an owner's card card.py
for all         files.py
"""
