"""`python -m bench`: measure, and write docs/benchmarks.md."""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OWN_NETWORK = "DOORSTATION_BENCH_NETWORK"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short: to try it out")
    parser.add_argument("--minutes", type=float, help="of the long call; 10, with --quick 0.25")
    parser.add_argument("--only", default="", help="names of measurements, separated by commas")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    # An installed program has its bytecode: without it, half of the start is compiling.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if OWN_NETWORK not in os.environ:
        from bench import rivals

        rivals.prepare(ROOT)  # while there still is a network
        _enter_own_network()
    return _measure(options)


def _enter_own_network() -> None:
    """Begin again as root of a network with nothing on it; does not return."""
    wrapper = str(ROOT / "tests/support/own-network.sh")
    os.environ[OWN_NETWORK] = "1"
    os.execv(wrapper, [wrapper, sys.executable, "-m", "bench", *sys.argv[1:]])


def _measure(options: argparse.Namespace) -> int:
    from bench import card, measurements, rivals
    from bench.agents import AGENTS
    from bench.far_end import FarEnd
    from bench.run import Bench, section
    from bench.table import page
    from tests.support.lab import lab

    chosen = measurements.chosen(options.only)
    facts = _facts(options.quick)
    present = tuple(agent for agent in AGENTS if agent.version())
    kept = card.library_folder(ROOT)
    library = card.build(kept)
    with tempfile.TemporaryDirectory(prefix="doorstation-bench-") as made, lab() as network:
        folder = Path(made)
        (folder / "card").mkdir()
        far_end = FarEnd(network.station)
        minutes = options.minutes or (0.25 if options.quick else 10)
        bench = Bench(
            network, far_end, card.Card(library, folder / "card"), folder, ROOT, present, minutes,
            options.quick, rivals.python(ROOT),
        )  # fmt: skip
        try:
            sections = [section(module, bench) for module in chosen]
        finally:
            far_end.close()
    text = page(facts, [agent.name for agent in present], sections)
    options.output.write_text(text)
    print(text)
    return 0


def _facts(quick: bool) -> dict[str, str]:
    from bench.agents import AGENTS, OTHERS
    from bench.table import processor, today

    facts = {
        "date": today(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {_memory()} GB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    facts.update({agent.name: agent.version() or "not installed" for agent in AGENTS})
    for name, program in OTHERS.items():
        facts[name] = "installed, not measured" if shutil.which(program) else "not installed"
    facts["load before it began"] = " ".join(f"{load:.1f}" for load in os.getloadavg())
    if quick:
        facts["length"] = "`--quick`: too short for figures to be quoted"
    return facts


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / 1e9:.0f}"


if __name__ == "__main__":
    sys.exit(main())
