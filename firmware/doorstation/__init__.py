"""Doorstation: a SIP door intercom. The rooms and what flows through them: docs/architecture.md."""

__version__ = "0.1.0"

BUILT = 1_790_000_000.0
"""Seconds since 1970, when this version was released (`deploy/release.sh` sets both). A clock or a
signed file that says less is wrong."""
