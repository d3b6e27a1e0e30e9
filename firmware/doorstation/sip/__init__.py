"""SIP as it is written and repeated, without sockets or clocks; what it is for says `ua`.

messages        message.py; headers.py and uri.py by grammar.py; multipart.py
transactions    endpoint.py (all of them) with transaction.py (the tables), alarms.py (whose timer)
dialogs         dialog.py
passwords       digest.py
where to        locate.py (RFC 3263)
to the sockets  transport.py
"""
