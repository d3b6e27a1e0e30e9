"""Figures, targets, and the page that shows them."""

import datetime
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OURS = "Doorstation"
YARDSTICK = "baresip"


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to reach: a number, or a multiple of baresip's in the same run."""

    limit: float | None = None
    times: float | None = None
    at_least: bool = False

    def text(self) -> str:
        word = "at least" if self.at_least else "at most"
        if self.times is not None:
            return f"{word} {self.times:g} x {YARDSTICK}"
        assert self.limit is not None
        return f"{word} {number(self.limit)}"

    def met(self, ours: float, yardstick: float | None) -> bool | None:
        """None when there is nothing to compare with."""
        limit = self.limit
        if self.times is not None:
            if yardstick is None:
                return None
            limit = self.times * yardstick
        assert limit is not None
        return ours >= limit if self.at_least else ours <= limit


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, of each program."""

    name: str
    unit: str
    values: Mapping[str, float | str]
    """By program; text says why there is no number."""
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        ours, yardstick = self.values.get(OURS), self.values.get(YARDSTICK)
        if isinstance(ours, str) or isinstance(yardstick, str) or not yardstick or ours is None:
            return None
        return ours / yardstick

    @property
    def verdict(self) -> str:
        """ "", "met" or "missed"."""
        ours, yardstick = self.values.get(OURS), self.values.get(YARDSTICK)
        if self.target is None:
            return ""
        if not isinstance(ours, int | float):
            return "missed"
        met = self.target.met(ours, yardstick if isinstance(yardstick, int | float) else None)
        return "" if met is None else "met" if met else "**missed**"


@dataclass(frozen=True, slots=True)
class Section:
    """One measurement: its figures, and what exactly was measured."""

    title: str
    method: str
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)


def number(value: float | str | None) -> str:
    """Three figures, as many as are worth anything here."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if float(value).is_integer():
        return f"{value:.0f}"
    return (
        f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
        if abs(value) >= 0.1
        else f"{value:.3f}"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def today() -> str:
    """Date and time of a page."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def processor() -> str:
    """What this machine calls it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model") and value.strip():
            return value.strip()
    return platform.machine()


def page(facts: Mapping[str, str], programs: Sequence[str], sections: Sequence[Section]) -> str:
    """docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`: one run that measures every program on the same machine, the same",
        "virtual sound card and network, with the same far end. Figures, not promises; one that",
        "misses its target stands here as it was measured.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        "## Figures",
        "",
        f"| figure | unit | {' | '.join(programs)} | ratio to {YARDSTICK} | to reach | |",
        f"|---|---|{'---:|' * len(programs)}---:|---|---|",
    ]
    for section in sections:
        for row in section.rows:
            values = " | ".join(number(row.values.get(name)) for name in programs)
            target = row.target.text() if row.target is not None else ""
            ratio = number(row.ratio)
            lines.append(
                f"| {row.name} | {row.unit} | {values} | {ratio} | {target} | {row.verdict} |"
            )
    lines += ["", "## What was measured", ""]
    for section in sections:
        lines += [f"### {section.title}", "", section.method.strip(), ""]
        for note in section.notes:
            lines += [f"- {note}"]
        if section.notes:
            lines += [""]
    return "\n".join(lines).rstrip() + "\n"
