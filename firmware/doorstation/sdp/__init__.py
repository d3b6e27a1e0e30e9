"""Session descriptions, and what two ends agree on by them.

the text        description.py; of its lines codecs.py (codecs), crypto.py (keys)
agreement       negotiation.py
"""
