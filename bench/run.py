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

from tests.support.lab import Lab

from bench.agents import Agent, Running, Setup
from bench.card import Card
from bench.far_end import FarEnd
from bench.table import Section

Values = dict[str, float | str]


@dataclass(slots=True)
class Bench:
    """One run."""

    lab: Lab
    far_end: FarEnd
    card: Card
    folder: Path
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

    def each(self, measure: Callable[[Agent], Mapping[str, float | str]]) -> dict[str, Values]:
        """Measure every program: {figure: {program: value}}. One that fails gets the reason."""
        found: dict[str, Values] = {}
        for agent in self.agents:
            try:
                measured = measure(agent)
            except (AssertionError, OSError, RuntimeError, ValueError) as fault:
                reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
                print(f"  {agent.name}: {fault}", file=sys.stderr, flush=True)
                measured = {"": f"failed: {reason}"}
            for name, value in measured.items():
                found.setdefault(name, {})[agent.name] = value
        failed = found.pop("", {})
        for values in found.values():
            values.update(failed)
        return found


def section(module: ModuleType, bench: Bench) -> Section:
    """Carry one measurement out. Its module's docstring is the page's text."""
    title, _, method = (inspect.getdoc(module) or "").partition("\n")
    print(title.rstrip("."), flush=True)
    rows, notes = module.measure(bench)
    return Section(title.rstrip("."), method, rows, notes)


def cores() -> tuple[set[int], int]:
    """(all others, the last one): the far end's, and that of a program kept on one."""
    have = sorted(os.sched_getaffinity(0))
    return set(have[:-1]) or set(have), have[-1]
