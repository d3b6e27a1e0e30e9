"""The door itself, without hardware, sockets or clocks: press, plan, call, digits, release.

what happens    controller.py, in the words of events.py
whom to ring    plan.py
what opens      codes.py (digits), policy.py (who may, when)
event log       ration.py (how much may be written there)
"""
