"""Measure how many planted faults the suite finds: `python -m tests.mutation --help`.

1. `cover` runs the suite, and records which tests execute which lines, and how long each takes.
2. `draw` draws faults in covered lines, by a seed, into `faults.json`.
3. `run` plants each in a copy of the repository, runs only the tests that execute its line, and writes a table.
4. `compare` prints the faults that one table finds and the other does not.

A copy is a clone in which the README's second set-up command was executed: `run` changes its files, and puts them back.
Lines that only other processes execute are not measured. Nothing here is part of the suite.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.faults import Fault, Place, draw_faults, find_place, plant, to_json

_ROOT = Path(__file__).parent.parent.parent
_FOLDER = Path(__file__).parent
_SECONDS_OF_A_FAULT = 40  # of the quickest tests of its line; a fault that lives longer is missed
_SECONDS_OF_A_TEST = 60  # the slowest takes 25; a fault that makes a loop endless is found by its end


@dataclass(frozen=True)
class Verdict:
    """What the suite says of one fault: `found`, `missed`, `gone` (its statement) or `uncovered` (its line).

    `by` is the first test that failed, `tests` how many were chosen, `seconds` how long the search took.
    """

    verdict: str
    by: str
    tests: int
    seconds: float


@dataclass(frozen=True)
class Coverage:
    """For each file and line the tests that execute it; for each test its seconds."""

    tests: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]

    @classmethod
    def load(cls, folder: Path) -> Coverage:
        """Read what `cover` recorded."""
        from coverage import CoverageData

        seconds: dict[str, float] = {}
        for times in folder.glob("times.*.jsonl"):
            for line in times.read_text("utf-8").splitlines():
                name, taken = json.loads(line)
                seconds[name] = taken
        data = CoverageData(str(folder / "coverage"))
        data.read()
        tests: dict[str, dict[int, set[str]]] = {}
        for file in data.measured_files():
            relative = file[file.rindex("/sweeper/") + 1 :]
            lines: dict[int, set[str]] = {}
            for line, contexts in data.contexts_by_lineno(file).items():
                names = {context.partition("|")[0] for context in contexts}
                lines[line] = names & seconds.keys()
            tests[relative] = {line: names for line, names in lines.items() if names}
        return cls(tests, seconds)

    def list_tests(self, place: Place) -> list[str]:
        """Return the tests that execute a line, the quickest first, and not more than a time allows."""
        names = self.tests.get(place.fault.path, {}).get(place.line, set())
        chosen = []
        seconds = 0.0
        for name in sorted(names, key=lambda name: self.seconds[name]):
            seconds += self.seconds[name]
            if chosen and seconds > _SECONDS_OF_A_FAULT:
                break
            chosen.append(name)
        return chosen


def cover(folder: Path) -> int:
    """Run the suite with the lines of each test recorded."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "settings.ini"
    settings.write_text(f"[run]\nsource = sweeper\nparallel = true\ndata_file = {folder / 'coverage'}\n", "utf-8")
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "tests.mutation.record_seconds"),
        *("--numprocesses", "auto", "--dist", "loadfile"),
        *("--cov", f"--cov-config={settings}", "--cov-context=test", "--cov-report="),
    ]
    environment = {**os.environ, "SWEEPER_TIMES": str(folder)}
    return subprocess.run(command, cwd=_ROOT, env=environment, check=False).returncode


def draw(folder: Path, count: int, seed: int) -> None:
    """Draw faults in the lines that the suite covers, and write them to `faults.json`."""
    covered = {path: lines.keys() for path, lines in Coverage.load(folder).tests.items()}
    faults = draw_faults(_ROOT, covered, count, seed)
    rows = [to_json(fault) for fault in faults]
    (_FOLDER / "faults.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def load_faults() -> list[Fault]:
    """Read the drawn faults."""
    return [Fault(**row) for row in json.loads((_FOLDER / "faults.json").read_text("utf-8"))]


def try_fault(fault: Fault, copy: Path, coverage: Coverage, finder: str = "") -> Verdict:
    """Plant a fault in a copy of the repository, and run the tests that execute its line until one fails.

    `finder` is the test that found the fault in an earlier table; it comes first if the suite still has it.
    """
    place = find_place(copy, fault)
    if place is None:
        return Verdict("gone", "", 0, 0)
    tests = coverage.list_tests(place)
    if finder in coverage.seconds:
        tests = [finder, *(name for name in tests if name != finder)]
    if not tests:
        return Verdict("uncovered", "", 0, 0)
    path = copy / fault.path
    source = path.read_bytes()
    start = time.monotonic()
    try:
        path.write_bytes(plant(source, place))
        failed = _run_tests(copy, tests)
    finally:
        path.write_bytes(source)
    seconds = round(time.monotonic() - start, 1)
    return Verdict("missed" if failed is None else "found", failed or "", len(tests), seconds)


def _run_tests(copy: Path, tests: list[str]) -> str | None:
    """Run tests until one fails, and return its name; a fault may also keep the tests from being imported."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "tests"
        names.write_text("\n".join(tests), "utf-8")
        command = [
            *(".venv/bin/python", "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"),
            *(f"--timeout={_SECONDS_OF_A_TEST}", f"@{names}"),
        ]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if not failed:
        return f"pytest ended with {done.returncode}"
    name = failed[0].partition(" ")[2]
    return name.partition(" - ")[0]


def run(folder: Path, copies: list[Path], table: Path, earlier: Path | None) -> None:
    """Try each fault, in as many copies at once as there are, and write the table."""
    coverage = Coverage.load(folder)
    faults = load_faults()
    if len(copies) > 1:
        _run_in_children(folder, copies, table, earlier)
        return
    finders = _read_finders(earlier)
    done = _read_numbers(table)
    with table.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not done:
            writer.writerow(["fault", "verdict", "by", "tests", "seconds"])
        for number, fault in _choose_share(faults):
            if number in done:
                continue
            verdict = try_fault(fault, copies[0], coverage, finders.get(number, ""))
            writer.writerow([number, verdict.verdict, verdict.by, verdict.tests, verdict.seconds])
            file.flush()


def _read_numbers(table: Path) -> set[int]:
    """Return the faults that an interrupted run of this table has tried."""
    if not table.is_file():
        return set()
    with table.open(encoding="utf-8") as file:
        return {int(row["fault"]) for row in csv.DictReader(file)}


def _read_finders(table: Path | None) -> dict[int, str]:
    """Return the test that found each fault in an earlier table."""
    if table is None:
        return {}
    with table.open(encoding="utf-8") as file:
        return {int(row["fault"]): row["by"] for row in csv.DictReader(file)}


def _choose_share(faults: list[Fault]) -> list[tuple[int, Fault]]:
    """Return the numbered faults of this process: every n-th of them if several share the work."""
    index, count = map(int, os.environ.get("SWEEPER_SHARE", "0/1").split("/"))
    return list(enumerate(faults))[index::count]


def _run_in_children(folder: Path, copies: list[Path], table: Path, earlier: Path | None) -> None:
    hints = [] if earlier is None else ["--earlier", str(earlier)]
    children = []
    parts = []
    for index, copy in enumerate(copies):
        part = table.with_suffix(f".{index}.csv")
        command = [
            *(sys.executable, "-m", "tests.mutation", "run", str(folder), str(part)),
            "--copy",
            str(copy),
            *hints,
        ]
        environment = {**os.environ, "SWEEPER_SHARE": f"{index}/{len(copies)}"}
        children.append(subprocess.Popen(command, cwd=_ROOT, env=environment))
        parts.append(part)
    for child in children:
        child.wait()
    rows = [row for part in parts for row in part.read_text("utf-8").splitlines()[1:]]
    rows.sort(key=lambda row: int(row.partition(",")[0]))
    header = parts[0].read_text("utf-8").splitlines()[0]
    table.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    for part in parts:
        part.unlink()


def compare(before: Path, after: Path) -> int:
    """Print both counts, and each fault that only the first table finds; return how many these are."""
    verdicts: dict[str, list[str]] = defaultdict(list)
    for table in (before, after):
        with table.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                verdicts[row["fault"]].append(row["verdict"])
        count = sum(found[-1] == "found" for found in verdicts.values())
        print(f"{table.name}: {count} of {len(verdicts)} faults found")
    lost = [number for number, found in verdicts.items() if found[0] == "found" and found[-1] != "found"]
    faults = load_faults()
    for number in lost:
        fault = faults[int(number)]
        print(f"{number}: {verdicts[number][-1]}: {fault.path} {fault.function}: {fault.before} -> {fault.after}")
    return len(lost)


def main() -> int:
    """Execute one step."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("cover", "draw", "run"):
        step = steps.add_parser(name)
        step.add_argument("folder", type=Path, help="where the coverage of each test lies")
        if name == "draw":
            step.add_argument("--count", type=int, default=150)
            step.add_argument("--seed", type=int, default=50)
        if name == "run":
            step.add_argument("table", type=Path)
            step.add_argument(
                "--copy", type=Path, action="append", required=True, help="a clone; several share the work"
            )
            step.add_argument("--earlier", type=Path, help="a table; the tests that found a fault there come first")
    step = steps.add_parser("compare")
    step.add_argument("before", type=Path)
    step.add_argument("after", type=Path)
    arguments = parser.parse_args()
    match arguments.step:
        case "cover":
            return cover(arguments.folder)
        case "draw":
            draw(arguments.folder, arguments.count, arguments.seed)
        case "run":
            run(arguments.folder, arguments.copy, arguments.table, arguments.earlier)
        case "compare":
            return min(1, compare(arguments.before, arguments.after))
    return 0


if __name__ == "__main__":
    sys.exit(main())
