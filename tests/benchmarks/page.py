"""Measures the report's page with ten thousand cells in a real Chromium, beside a blank page and a trivial page.

    python tests/benchmarks/page.py [--folder DIR] [--cells N] [--repeats N] [--pending SHARE]

`--folder` keeps the made-up report between calls, or has one already, such as a folder of `large_sweep.py`.
`--pending` leaves the last share of its trials pending. Each figure is the best and the worst of the repeats. Compare
frames with those of the trivial page, a table of as many coloured cells without a script, because a busy machine has
long frames there too. Frames and blank cells are measured in separate scrolls, because looking up a hundred points
costs a third of a frame. Memory is that of all processes of the browser, with shared memory counted once; a browser
collects garbage when it is idle.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from sweeper.reporting.write_report import write_report
from tests.conftest import CHROMIUM
from tests.reporting.made_up_sweeps import Sweep

# The trivial page.
TRIVIAL = """([count, size, high]) => {
  document.body.innerHTML = `<style>body{margin:0}.scroller{position:fixed;inset:0;overflow:auto;contain:strict}
    table{border-spacing:4px;table-layout:fixed;width:${count * (size + 4)}px}td{padding:0;height:${high}px}</style>
    <div class=scroller><table>` + Array.from({length: count}, (_, r) => '<tr>' + Array.from({length: count}, (_, c) =>
    `<td style="background:hsl(${(r * 37 + c * 11) % 360} 60% 60%)">trial ${r * count + c}`).join('')).join('');
}"""

# A cell is complete when its picture or the sheet with its sprite is loaded; a cell without a picture always is.
THERE = """window.there = (cell) => {
  const sheets = (window.sheets ??= new Map());
  if (cell?.matches('.pending, .failed, .cancelled, .none')) return true; // it says so itself
  const image = cell?.querySelector('img');
  if (image?.complete && image.naturalWidth > 0) return true;
  const sprite = cell?.querySelector('.sprite');
  if (!sprite) return false;
  if (!sheets.has(sprite.className)) {
    const sheet = new Image();
    sheet.src = getComputedStyle(sprite).backgroundImage.slice(5, -2);
    sheets.set(sprite.className, sheet);
  }
  const sheet = sheets.get(sprite.className);
  return sheet.complete && sheet.naturalWidth > 0;
};"""

# Scrolls by a number of pixels per frame. If it `looks`, it looks up a net of points before each step.
SCROLL = """async ({dx, dy, frames, looks}) => {
  const s = document.querySelector('.scroller'), box = s.getBoundingClientRect();
  const first = document.querySelector('.cell');
  const pitch = first ? [first.offsetWidth + 4, first.offsetHeight + 4] : [1, 1]; // cells that are not even there
  const deltas = [], blank = new Map();
  let worst = 0, last = 0, turn = [1, 1];
  const look = (now) => {
    const seen = new Set();
    for (let i = 1; i < 12; i++) for (let j = 1; j < 9; j++) {
      const [x, y] = [box.left + (box.width * i) / 12, box.top + (box.height * j) / 9];
      const at = document.elementFromPoint(x, y);
      if (!at || at.closest('.heads, .side, .band-title')) continue;
      const cell = at.closest('.cell');
      if (there(cell)) continue;
      const key = `${Math.floor((x + s.scrollLeft) / pitch[0])},${Math.floor((y + s.scrollTop) / pitch[1])}`;
      const name = cell?.dataset.trial ?? key;
      seen.add(name);
      if (!blank.has(name)) blank.set(name, now);
      worst = Math.max(worst, now - blank.get(name));
    }
    for (const name of [...blank.keys()]) if (!seen.has(name)) blank.delete(name);
  };
  await new Promise((done) => {
    const step = (now) => {
      if (last) deltas.push(now - last);
      last = now;
      if (looks) look(now);
      if (deltas.length >= frames) return done();
      const [x, y] = [s.scrollLeft, s.scrollTop];
      s.scrollBy(dx * turn[0], dy * turn[1]);
      if (dx && s.scrollLeft === x) turn[0] *= -1;
      if (dy && s.scrollTop === y) turn[1] *= -1;
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  });
  deltas.sort((a, b) => a - b);
  return {worst: deltas.at(-1), p95: deltas[Math.floor(deltas.length * 0.95)],
          over: deltas.filter((d) => d > 35).length, blank: worst};
}"""

# `sharp`: no cell shows a sprite in place of its picture.
PAINTED = """(sharp) => new Promise((done) => {
  const look = () => {
    const box = document.querySelector('.scroller')?.getBoundingClientRect();
    const top = box?.top + document.querySelector('.heads')?.offsetHeight; // what the labels cover is not in view
    const left = box?.left + document.querySelector('.side')?.offsetWidth;
    const cells = [...document.querySelectorAll('.cell[data-trial]')].filter((c) => {
      const b = c.getBoundingClientRect();
      return b.right > left + 1 && b.left < box.right - 1 && b.bottom > top + 1 && b.top < box.bottom - 1; });
    const shown = (c) => there(c) && !(sharp && c.querySelector('.sprite'));
    if (!cells.length || !cells.every(shown)) return requestAnimationFrame(look);
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())));
  };
  look();
})"""

# From the change to the second frame after it; the first frame shows the change.
CHANGE = """(change) => new Promise((done) => {
  const start = performance.now();
  sweeper.page.update(change);
  const busy = performance.now() - start;
  requestAnimationFrame(() => setTimeout(() => done({busy, shown: performance.now() - start})));
})"""
RESTED = f"() => {{ const start = performance.now(); return ({PAINTED})(true).then((end) => end - start); }}"
CHANGES = [
    ("swap the axes", {"x": "cfg", "y": "seed"}),
    ("captions off", {"captions": False}),
    ("captions on", {"captions": True}),
    ("colour by a metric", {"colour": "brightness"}),
    ("filter", {"where": "seed > 20"}),
    ("no filter", {"where": ""}),
    ("table", {"view": "table"}),
    ("grid", {"view": "grid"}),
]
FLINGS = [("down", 0, 40), ("down, fast", 0, 400), ("diagonal", 40, 30), ("diagonal, fast", 300, 240)]


def memory(browser: Any) -> float:
    """Megabytes that the browser's processes hold together; what they share counts once."""
    session = browser.new_browser_cdp_session()
    total = 0
    for process in session.send("SystemInfo.getProcessInfo")["processInfo"]:
        text = Path(f"/proc/{process['id']}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    session.detach()
    return total / 1024


class MainThread:
    """Milliseconds that the page's main thread worked, whatever else the machine did meanwhile."""

    def __init__(self, page: Any) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._before = 0.0

    def measure_work(self) -> float:
        """Since the last call."""
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        now = next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration") * 1000
        since, self._before = now - self._before, now
        return since


def measure(browser: Any, page_file: Path, address: str, found: dict[str, list[float]]) -> None:
    note = lambda name, value: found.setdefault(name, []).append(value)  # noqa: E731
    floor(browser, int(address.partition("size=")[2] or 160), note)
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.goto("about:blank")
    page.wait_for_timeout(1000)
    blank = memory(browser)
    page.add_init_script(THERE)
    thread = MainThread(page)
    page.goto(f"{page_file.as_uri()}{address}")
    thread.measure_work()
    note("painted after (ms)", page.evaluate(PAINTED, False))
    note("sharp after (ms)", page.evaluate(PAINTED, True))
    note("memory above a blank page, at first (MB)", memory(browser) - blank)
    note("elements", page.locator("*").count())
    for name, dx, dy in FLINGS:
        home(page)
        thread.measure_work()
        frames = page.evaluate(SCROLL, {"dx": dx, "dy": dy, "frames": 60, "looks": False})
        note(f"main thread at work per frame, {name} (ms)", thread.measure_work() / 60)
        note(f"worst frame, {name} (ms)", frames["worst"])
        note(f"frames over 35 ms of 60, {name}", frames["over"])
        note(f"sharp after coming to rest, {name} (ms)", page.evaluate(RESTED))
    note("memory above a blank page, after scrolling (MB)", memory(browser) - blank)
    for name, dx, dy in FLINGS:
        home(page)
        frames = page.evaluate(SCROLL, {"dx": dx, "dy": dy, "frames": 60, "looks": True})
        note(f"longest blank cell, {name} (ms)", frames["blank"])
    note("elements after scrolling", page.locator("*").count())
    page.wait_for_timeout(20_000)
    note("the same, 20 s later (MB)", memory(browser) - blank)
    for name, change in CHANGES:
        thread.measure_work()
        took = page.evaluate(CHANGE, change)
        note(f"{name} (ms)", took["shown"])
        note(f"{name}, main thread at work (ms)", thread.measure_work())
    context.close()


def floor(browser: Any, size: int, note: Any) -> None:
    """What the browser makes of a page that only scrolls; in a process of its own, that is gone afterwards."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.evaluate(TRIVIAL, [100, size, size + 20])
    page.wait_for_timeout(1000)
    for name, dx, dy in FLINGS:
        frames = page.evaluate(SCROLL, {"dx": dx, "dy": dy, "frames": 60, "looks": False})
        note(f"only scrolls: worst frame, {name} (ms)", frames["worst"])
        note(f"only scrolls: frames over 35 ms of 60, {name}", frames["over"])
    context.close()


def home(page: Any) -> None:
    """Back to the first cell, at rest."""
    page.locator(".scroller").evaluate("s => s.scrollTo(0, 0)")
    page.evaluate(PAINTED, True)


def thumbnails(artifacts: Path, count: int = 400) -> None:
    """Pictures per second of ours (three sizes, every core), and of a plain loop that makes one size."""
    from PIL import Image

    from sweeper.reporting.thumbnails import Thumbnails

    paths = sorted(artifacts.iterdir())[:count]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        Thumbnails(Path(folder)).make(lambda: iter([(f"{n:064x}", str(path)) for n, path in enumerate(paths)]), 0)
        ours = len(paths) / (time.perf_counter() - start)
        start = time.perf_counter()
        for path in paths:
            with Image.open(path) as image:
                image.thumbnail((320, 320))
                image.save(Path(folder) / "plain.webp")
        plain = len(paths) / (time.perf_counter() - start)
    cores = os.cpu_count()
    print(f"thumbnails: {ours:.0f} pictures/s in three sizes on {cores} cores; a plain loop, one size: {plain:.0f}/s")


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pending", type=float, default=0.0, metavar="SHARE")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder = next((store.parent for store in folder.glob("results/*/sweeper.sqlite")), folder)
    if not (folder / "sweeper.sqlite").exists():
        side = round(given.cells**0.5)
        axes = {"seed": list(range(side)), "cfg": [1 + n / 4 for n in range(side)]}
        left = range(round(side * side * (1 - given.pending)), side * side)
        Sweep(axes, size=(256, 256), ends=dict.fromkeys(left, ("pending", None))).write(folder)
    if not (folder / "report/index.html").exists():
        start = time.perf_counter()
        write_report(folder)
        print(f"first report: {time.perf_counter() - start:.1f} s on {os.cpu_count()} cores")
    start = time.perf_counter()
    page = write_report(folder).page
    print(f"report again: {time.perf_counter() - start:.1f} s")
    if not given.folder:
        thumbnails(folder / "artifacts")
    with sync_playwright() as playwright:
        for address in ("", "#size=64"):
            found: dict[str, list[float]] = {}
            for _ in range(given.repeats):
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
                measure(browser, page, address, found)
                browser.close()
            print(f"\ncells {address or 'as at first'}")
            for name, values in found.items():
                print(f"  {name:<48} {min(values):8.1f} to {max(values):8.1f}")


if __name__ == "__main__":
    main()
