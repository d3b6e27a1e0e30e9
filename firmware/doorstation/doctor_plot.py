"""The acoustic self-test as a picture: three panels of lines, in SVG, with no library."""

from collections.abc import Sequence
from html import escape
from math import log10

from doorstation.media.selftest import Pictures

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 860, 200, 60, 50, 60

Line = Sequence[tuple[float, float]]


def picture(pictures: Pictures, verdict: str) -> str:
    """An SVG document."""
    spectrum = [(log10(hertz), level) for hertz, level in pictures.spectrum]
    ticks = [(log10(hertz), f"{hertz:g}") for hertz in (100, 200, 500, 1000, 2000, 5000)]
    panels = [
        _panel(0, "Impulse response, dB over ms", [("", "#1565c0", pictures.response)], (-80, 0)),
        _panel(
            1, "Loudspeaker to microphone, dB over Hz", [("", "#1565c0", spectrum)], None, ticks
        ),
        _panel(
            2,
            "Level, dBFS over s",
            [
                ("played", "#9e9e9e", pictures.played),
                ("heard", "#c62828", pictures.heard),
                ("sent", "#2e7d32", pictures.sent),
            ],
            (-90, 0),
        ),
    ]
    height = _TOP + 3 * (_HEIGHT + _GAP)
    title = f'<text x="{_LEFT}" y="26" font-size="18">Acoustic self-test: {escape(verdict)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 2 * _LEFT}" height="{height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{title}{''.join(panels)}</svg>\n"
    )


def _panel(
    place: int,
    title: str,
    curves: list[tuple[str, str, Line]],
    levels: tuple[float, float] | None,
    ticks: list[tuple[float, str]] | None = None,
) -> str:
    across = [x for _, _, line in curves for x, _ in line]
    first, last = min(across), max(across)
    if levels is None:
        up = [y for _, _, line in curves for _, y in line]
        levels = (min(up) - 3, max(up) + 3)
    low, high = levels
    top = _TOP + place * (_HEIGHT + _GAP)

    def x_of(value: float) -> float:
        return _LEFT + (value - first) / (last - first) * _WIDTH

    def y_of(level: float) -> float:
        return top + (high - min(max(level, low), high)) / (high - low) * _HEIGHT

    out = [
        f'<text x="{_LEFT}" y="{top - 6}" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
        'stroke="#888"/>',
    ]
    for step in range(5):
        level = low + (high - low) * step / 4
        out.append(
            f'<text x="{_LEFT - 6}" y="{y_of(level) + 4:.0f}" text-anchor="end">{level:.0f}</text>'
        )
    marks = ticks or [
        (first + (last - first) * step / 8, f"{first + (last - first) * step / 8:.0f}")
        for step in range(9)
    ]
    for value, text in marks:
        if first <= value <= last:
            at = x_of(value)
            out.append(
                f'<text x="{at:.0f}" y="{top + _HEIGHT + 16}" text-anchor="middle">{text}</text>'
            )
    for index, (name, colour, line) in enumerate(curves):
        points = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        if name:
            at = _LEFT + _WIDTH - 60
            out.append(f'<text x="{at}" y="{top + 16 + 14 * index}" fill="{colour}">{name}</text>')
    return "".join(out)
