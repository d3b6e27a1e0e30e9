"""Figures: Doorstation beside other SIP phones, measured in one run. `make bench`."""
