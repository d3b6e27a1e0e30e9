"""What DHCP offers a door beside its address.

asking          exchange.py, in the terms of options.py
answers         offered.py; leases.py (those that the system's own client was given)
"""
