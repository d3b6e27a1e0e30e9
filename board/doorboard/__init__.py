"""The hardware of a door station, usable alone on a bench."""
