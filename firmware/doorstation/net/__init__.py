"""Sockets, timers and the media thread: each shell carries out what a pure room asks for.

SIP             agent_shell.py (the user agent's), sockets.py, tls.py
names, links    dns.py, netlink.py
the network's   offers.py (SIP servers), dhcp.py, ua_profile.py, dns_sd.py, mdns.py
files           https.py (http too) with link_names.py, tftp.py
claim page      visits.py
sound           media/ (the thread), card_watch.py (while it has no call)
orders          order_client.py: the office's end
control socket  control.py, control_client.py
for all         addresses.py, datagrams.py
systemd         signals.py, watchdog.py
"""
