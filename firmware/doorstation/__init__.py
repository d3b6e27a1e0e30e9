"""Doorstation: a SIP door intercom. The rooms and what flows through them: docs/architecture.md."""

__version__ = "0.1.0"
