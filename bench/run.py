"""What every measurement is given: programs, a network, a far end, a card, and how long."""

import contextlib
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Final

from bench.agents import Agent, Running, Setup
from bench.card import Card
from bench.far_end import FarEnd
from bench.table import Section
from tests.support.lab import Lab

Values = dict[str, float | str]

FAULTS: Final = (AssertionError, OSError, RuntimeError, ValueError)
"""Of a program that does not do what it should, or is not there."""


class Found(dict[str, Values]):
    """{figure: {program: value}}; a figure that no program gave holds why."""

    def __init__(self) -> None:
        self.failed: Values = {}

    def __missing__(self, name: str) -> Values:
        return self.failed


@dataclass(slots=True)
class Bench:
    """One run."""

    lab: Lab
    far_end: FarEnd
    card: Card
    folder: Path
    root: Path
    """Of the checkout."""
    agents: tuple[Agent, ...]
    minutes: float
    """Length of the long call."""
    quick: bool
    rivals: Path | None
    """Python of an environment with other SIP libraries."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def count(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def seconds(self, full: float, quick: float) -> float:
        return quick if self.quick else full

    @contextlib.contextmanager
    def start(self, agent: Agent, setup: Setup) -> Iterator[Running]:
        """Run a program for one measurement."""
        folder = self.folder / f"{next(self._numbers)}-{agent.name}"
        with agent.run(self.lab, self.far_end, self.card, folder, setup) as running:
            yield running

    def each(self, measure: Callable[[Agent], Mapping[str, float | str]]) -> Found:
        """Measure every program. One that fails has the reason for a value."""
        found = Found()
        for agent in self.agents:
            try:
                measured = measure(agent)
            except FAULTS as fault:
                print(f"  {agent.name}: {fault}", file=sys.stderr, flush=True)
                found.failed[agent.name] = f"failed: {first_line(fault)}"
                continue
            for name, value in measured.items():
                found.setdefault(name, {})[agent.name] = value
        for values in found.values():
            values.update(found.failed)
        return found


def first_line(fault: BaseException) -> str:
    """What it says, in short."""
    return next(iter(str(fault).splitlines()), type(fault).__name__)


def section(module: ModuleType, bench: Bench) -> Section:
    """Carry one measurement out. Its module's docstring is the page's text."""
    title, _, method = (inspect.getdoc(module) or "").partition("\n")
    print(title.rstrip("."), flush=True)
    try:
        rows, notes = module.measure(bench)
    except FAULTS as fault:
        print(f"  {fault}", file=sys.stderr, flush=True)
        rows, notes = [], [f"failed: {first_line(fault)}"]
    return Section(title.rstrip("."), method, rows, notes)


def cores() -> tuple[set[int], int]:
    """(all others, the last one): the far end's, and that of a program kept on one."""
    have = sorted(os.sched_getaffinity(0))
    return set(have[:-1]) or set(have), have[-1]
