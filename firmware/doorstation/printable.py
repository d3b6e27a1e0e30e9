"""What strangers wrote, for a terminal or a log file."""


def printable(text: str, *, lines: bool = False) -> str:
    """Text without control characters, which could move a cursor, hide or forge a line.

    They are shown as escapes instead; with `lines`, line ends and tabs stay.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)
