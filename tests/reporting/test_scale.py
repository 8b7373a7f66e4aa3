"""Ten thousand cells: the document stays small and every position shows the right cell.

Durations are not asserted, because they differ on a busy machine; `tests/benchmarks/page.py` measures them. The number
of elements is what they depend on.
"""

from __future__ import annotations

import pytest

from sweeper.reporting.write_report import write_report
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import read_all

MOST = 3000  # elements of the whole document


SEEDS = CFGS = 100
LAST = SEEDS * CFGS - 1


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    axes = {"seed": list(range(SEEDS)), "cfg": [1 + n / 4 for n in range(CFGS)]}
    out = Sweep(axes, distinct=40, size=(352, 352)).write(tmp_path_factory.mktemp("large"))
    return write_report(out).page.parent


REST = """async () => {
  const draw = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  await draw();
  while (sweeper.page.isBusy()) await draw();
}"""


def test_document_stays_small(large, opened):
    page = opened(large)
    found = {"": page.locator("*").count()}
    for address in ("#size=48", "#x=cfg&y=&xx=", "#x=&y=", "#x=cfg&y=&yy=seed", "#view=table", "#view=plots"):
        page.goto(f"{large.as_uri()}/index.html{address}")  # only the part behind # changes
        page.evaluate(REST)
        found[address] = page.locator("*").count()
    assert {address: count for address, count in found.items() if count > MOST} == {}


def test_labels_stay_in_view_and_the_document_small_while_the_grid_scrolls(large, opened):
    page = opened(large)
    page.locator(".scroller").evaluate("s => s.scrollTo(3000, 3000)")
    page.wait_for_function("() => !document.querySelector('[data-trial=\"0\"]')")
    frame = page.locator(".scroller").bounding_box()
    heads, sides = page.locator(".head"), page.locator(".side")
    assert all(abs(heads.nth(n).bounding_box()["y"] - frame["y"]) < 2 for n in range(3))
    assert all(abs(sides.nth(n).bounding_box()["x"] - frame["x"]) < 2 for n in range(3))
    page.locator(".scroller").evaluate("s => s.scrollTo(s.scrollWidth, s.scrollHeight)")
    page.wait_for_selector(f'[data-trial="{LAST}"] img')
    assert page.locator('[data-trial="0"]').count() == 0
    assert page.locator("*").count() <= MOST


FLING = """async (size) => {
  const s = document.querySelector('.scroller');
  for (let n = 0; n < 40; n++) {
    s.scrollBy(260, 210);
    await new Promise((done) => requestAnimationFrame(done));
  }
  const rest = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  for (let n = 0; n < 200 && sweeper.page.isBusy(); n++) await rest();
  await rest();
}"""


# The crossings of rows and columns in view: their number, and those without the right cell.
PLACES = """() => {
  const box = document.querySelector('.scroller').getBoundingClientRect();
  const value = (row, name) => sweeper.page.dataset.column(name).label(row);
  const wrong = [];
  let places = 0;
  for (const head of document.querySelectorAll('.head')) {
    for (const side of document.querySelectorAll('.side')) {
      const [h, s] = [head.getBoundingClientRect(), side.getBoundingClientRect()];
      const [x, y] = [h.left + h.width / 2, s.top + s.height / 2];
      if (x < s.right || x > box.right - 20 || y < h.bottom || y > box.bottom - 20) continue;
      places += 1;
      const cell = document.elementFromPoint(x, y)?.closest('.cell');
      const row = cell ? sweeper.page.dataset.row(Number(cell.dataset.trial)) : -1;
      if (row < 0 || value(row, 'cfg') !== head.title || value(row, 'seed') !== side.title)
        wrong.push([head.title, side.title]);
    }
  }
  return [places, wrong];
}"""


def test_keyboard_reaches_the_last_cell(large, opened):
    page = opened(large, "#x=cfg&y=seed")
    page.locator("[role=grid]").focus()
    page.keyboard.press("End")
    current = page.locator(".cell.current")
    assert page.locator("[role=grid]").get_attribute("aria-activedescendant") == current.get_attribute("id")
    assert current.get_attribute("aria-colindex") == str(CFGS + 1)
    assert page.evaluate(
        """() => {
        const [c, s] = ['.cell.current', '.scroller'].map(q => document.querySelector(q).getBoundingClientRect());
        return c.right <= s.right && c.bottom <= s.bottom; }"""
    )


def test_filter_over_many_rows_keeps_exactly_the_matches(large, opened):
    page = opened(large, "#where=" + "seed in [3, 24] and cfg < 2".replace(" ", "%20"))
    assert page.evaluate("() => sweeper.page.getArrangement().shown") == 2 * 4


def test_cells_load_the_thumbnail_that_fits_them(large, opened):
    page = opened(large, "#size=64")
    sides = []
    for size in (64, 160, 320):
        page.goto(f"{large.as_uri()}/index.html#size={size}")
        page.evaluate(REST)
        page.wait_for_function("size => sweeper.page.getState().size === size", arg=size)
        source = page.locator(".cell img").first.get_attribute("src")
        sides.append(source.rpartition(".")[0][len("thumbs/") + 64 :])
    assert sides == ["-80", "-160", ""]


def test_fast_scroll_shows_sprites_and_loads_pictures_at_rest(large, opened):
    page = opened(large, "#size=64&x=cfg&y=seed")
    page.wait_for_function("() => document.querySelectorAll('.cell img').length > 20")
    asked = page.evaluate(
        """async () => {
        const s = document.querySelector('.scroller');
        for (let n = 0; n < 30; n++) {
          s.scrollBy(90, 60);
          await new Promise((done) => requestAnimationFrame(done));
        }
        const last = [...document.querySelectorAll('.cell[data-trial]')].slice(-20);
        return last.filter((cell) => !cell.querySelector('.sprite, img')).length; }"""
    )
    assert asked == 0
    page.wait_for_function(
        """() => {
        const isInView = ({ x, y }) => [x / innerWidth, y / innerHeight].every((share) => share > 0.3 && share < 0.5);
        const at = [...document.querySelectorAll('.cell')].find((cell) => isInView(cell.getBoundingClientRect()));
        return at?.querySelector('img')?.complete && !at.querySelector('.sprite'); }"""
    )


# Whether each cell, which showed another trial before, says and captions its own.
DESCRIBED = """() => [...document.querySelectorAll('.cell[data-trial]')].every(cell => {
  const brightness = sweeper.page.dataset.column('brightness');
  const words = `trial ${cell.dataset.trial}`;
  return cell.getAttribute('aria-label')?.startsWith(words + ', ')
    && cell.querySelector('.caption').textContent.endsWith(brightness.label(Number(cell.dataset.row)));
})"""


# How many cells show the picture of another trial, or their words not below it.
COUNT_WRONG = """cells => cells.filter(cell => {
  const { dataset } = sweeper.page;
  const sha = dataset.files(dataset.row(Number(cell.dataset.trial)))[0].sha256;
  const [image, words] = [cell.querySelector('img'), cell.querySelector('.caption')];
  const [box, below] = [cell.getBoundingClientRect(), words.getBoundingClientRect()];
  return !image.src.includes(sha) || Math.abs(below.bottom - box.bottom) > 1
    || below.top < image.getBoundingClientRect().bottom - 1;
}).length"""


@pytest.mark.parametrize("size", [64, 160])
def test_every_position_has_its_own_cell_after_a_fast_scroll(large, opened, size):
    page = opened(large, f"#size={size}&x=cfg&y=seed&colour=brightness")
    page.evaluate("() => (window.before = document.querySelector('.cell'))")
    page.evaluate(FLING)
    places, wrong = page.evaluate(PLACES)
    assert places > 20
    assert wrong == []
    assert page.locator("*").count() <= MOST
    page.wait_for_function(DESCRIBED)
    assert page.evaluate("() => window.before.isConnected")  # it was moved and not replaced
    page.wait_for_function("() => document.querySelectorAll('.cell > img').length > 20")
    assert read_all(page, ".cell:has(> img)", COUNT_WRONG) == 0
