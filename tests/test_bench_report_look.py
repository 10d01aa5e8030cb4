"""The page in a real browser: on the screen, on paper, in a screen reader; and the table on its first screen."""

import base64
import re

import pytest
from support.bench_results import finished, make, replaced
from support.browser import Browser, chromium

from bench.report import glance, memory, words
from bench.report.page import page, sections

needs_browser = pytest.mark.skipif(chromium() is None, reason="chromium is not installed")
METRICS = ("boot", "memory", "disk", "cpu", "syscall", "io", "net", "density", "teardown")

# text elements that exceed their chart, and pairs that overlap, in pixels
OVERLAPS = """
[...document.querySelectorAll("figure svg")].flatMap(svg => {
  const all = svg.getBoundingClientRect(), found = [];
  const boxes = [...svg.querySelectorAll("text")].map(e => [e.textContent, e.getBoundingClientRect()]);
  boxes.forEach(([text, box], n) => {
    if (box.left < all.left - 1 || box.right > all.right + 1 || box.top < all.top - 1 || box.bottom > all.bottom + 1)
      found.push(["cut", text]);
    for (const [other, its] of boxes.slice(n + 1)) {
      const wide = Math.min(box.right, its.right) - Math.max(box.left, its.left);
      const high = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
      if (wide > 1 && high > 0.25 * Math.min(box.height, its.height)) found.push([text, other]);
    }
  });
  return found;
})"""
GLANCE = """
({bottom: document.querySelector(".glance tbody").getBoundingClientRect().bottom,
  too_wide: [...document.querySelectorAll(".glance .wide")].filter(e => e.scrollWidth > e.clientWidth).length,
  texts: [...document.querySelectorAll(".glance tbody strong")].map(e => parseFloat(getComputedStyle(e).fontSize))})"""


def worded(ask, script):
    """Return the result of a script in the page."""
    found = ask("Runtime.evaluate", expression=script, returnByValue=True)
    assert "exceptionDetails" not in found, found
    return found["result"].get("value")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def show(browser, tmp_path):
    """`with show(result, width, height) as ask` opens the page of a result."""

    def shown(result, width=1280, height=720):
        path = tmp_path / "page.html"
        path.write_text(page(result))
        return browser.opened(f"file://{path}", width, height)

    return shown


def read(ask):
    """Return the nodes for a screen reader, in order: (role, name, roles of its ancestors)."""
    nodes = {one["nodeId"]: one for one in ask("Accessibility.getFullAXTree")["nodes"]}
    found = []

    def walk(number, around):
        one = nodes.get(number)
        if one is None:
            return
        role = one.get("role", {}).get("value", "")
        if not one["ignored"]:
            found.append((role, one.get("name", {}).get("value", ""), around))
            around = (*around, role)
        for child in one.get("childIds", ()):
            walk(child, around)

    walk(next(iter(nodes)), ())
    return found


def pages(ask):
    """Return how many pages the browser prints."""
    text = base64.b64decode(ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)["data"])
    return len(re.findall(rb"/Type\s*/Page\b", text))


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844)], ids=["projector", "telephone"])
def test_the_first_screen_has_the_answers(show, width, height):
    with show(make(metrics=("boot", "memory", "teardown"), faults=False), width, height) as ask:
        seen = worded(ask, GLANCE)
    assert seen["bottom"] <= height
    assert seen["too_wide"] == 0
    assert len(seen["texts"]) == 9
    assert min(seen["texts"]) >= (24 if width > 1000 else 15)


@needs_browser
def test_on_a_telephone_facts_are_read_without_scrolling(show):
    result = make(runs=2, metrics=("boot",))
    with show(replaced(result, host={**result.host, "kernel_command_line": "x" * 400}), 390, 844) as ask:
        seen = worded(
            ask,
            "[...document.querySelectorAll('.wide')].filter(e => e.querySelector('thead tr').children.length === 2)"
            ".map(e => [e.textContent.length, e.scrollWidth - e.clientWidth])",
        )
    assert any(length > 400 for length, _ in seen)
    assert {aside for length, aside in seen if length} <= {0}


@needs_browser
def test_a_long_reason_takes_no_width_from_other_modes(show):
    result = make(metrics=("boot", "memory"))
    reason = "it was stopped before instance 2: " + "instances share the network of the host " * 5
    figures = tuple(
        replaced(one, value=None, low=None, high=None, why=reason) if one.mode == "host" else one
        for one in result.figures
    )
    with show(replaced(result, figures=figures)) as ask:
        widths = worded(ask, "[...document.querySelectorAll('.even thead th')].slice(1).map(e => e.offsetWidth)")
    assert len(widths) == 3
    assert max(widths) <= 1.15 * min(widths)


@needs_browser
@pytest.mark.parametrize("runs", [2, 32])
def test_no_text_of_a_chart_is_cut_or_covered(show, runs):
    with show(make(runs=runs, metrics=METRICS)) as ask:
        assert worded(ask, "document.querySelectorAll('figure svg text').length") > 100
        assert worded(ask, OVERLAPS) == []
        worded(ask, "const t = document.querySelector('figure svg text'); t.parentNode.append(t.cloneNode(true))")
        assert worded(ask, OVERLAPS)  # so an overlap would be found


@needs_browser
def test_an_axis_that_begins_at_nothing_has_few_numbers(show):
    """The points are close together and far from 0: 44 KiB per instance, above an image of 2 MiB."""
    result = make(runs=2, modes=("host", "container"), metrics=("disk",), faults=False)
    taken = [2e6 + 45056 * number for number in range(6)]
    samples = tuple(
        replaced(one, series={**one.series, "disk_bytes": taken}) if one.kind == "ladder" else one
        for one in result.samples
    )
    with show(finished(result, samples=samples)) as ask:
        assert worded(ask, OVERLAPS) == []


@needs_browser
def test_a_screen_reader_gets_the_page_in_its_order(show):
    result = make(metrics=("boot", "memory", "disk", "teardown"))
    with show(result) as ask:
        seen = read(ask)
    headings = [name for role, name, _ in seen if role == "heading"]
    asked = [one.heading for one in sections(result)]
    first = [words.title(result), "At a glance", "In words", "Memory of one idle instance", asked[0]]
    assert headings[:5] == first
    assert [one for one in headings if one in asked] == asked
    assert {"banner", "main", "contentinfo"} <= {role for role, _, _ in seen}
    tables = [name for role, name, _ in seen if role == "table"]
    assert len(tables) > 5
    assert all(tables)


@needs_browser
def test_a_chart_is_one_image_with_its_numbers_after_it(show):
    result = make(metrics=("boot", "memory"))
    with show(result) as ask:
        seen = read(ask)
    drawn = [memory.chart(result), *(chart for section in sections(result) for chart in section.charts)]
    images = [(number, name) for number, (role, name, _) in enumerate(seen) if role in ("image", "img")]
    assert [name for _, name in images] == [chart.title for chart in drawn]
    assert not [one for one in seen if set(one[2]) & {"image", "img"}]  # nothing inside is read separately
    for (number, _), chart in zip(images, drawn, strict=True):
        after = [name for role, name, _ in seen[number:] if role == "DisclosureTriangle"]
        assert after[0] == f"The numbers of the chart: {chart.title}"


@needs_browser
def test_what_is_folded_takes_no_paper_until_it_is_opened(show):
    with show(make(metrics=("boot", "memory", "disk", "teardown"))) as ask:
        closed = pages(ask)
        worded(ask, "document.querySelectorAll('details').forEach(e => { e.open = true })")
        assert 3 <= closed < pages(ask)


@needs_browser
def test_on_paper_nothing_is_wider_than_the_sheet(show):
    with show(make(metrics=METRICS), 690, 1000) as ask:  # A4 without its margins, in CSS pixels
        ask("Emulation.setEmulatedMedia", media="print")
        assert worded(ask, "document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        wide = "[...document.querySelectorAll('table, svg')].map(e => e.getBoundingClientRect().right)"
        assert max(worded(ask, wide)) <= 690
        heights = worded(ask, "[...document.querySelectorAll('.question')].map(e => e.offsetHeight)")
    assert max(heights) <= 1000  # a question and its chart are on one page


@needs_browser
def test_the_first_sheet_has_answers_conclusions_and_memory(show):
    """It is the one that is handed in; each question follows on the next ones."""
    with show(make(metrics=("boot", "memory", "disk", "teardown")), 690, 1000) as ask:
        ask("Emulation.setEmulatedMedia", media="print")
        bottom = worded(ask, "document.querySelector('.glance').getBoundingClientRect().bottom")
        texts = worded(ask, "[...document.querySelectorAll('.glance :is(h2, h3)')].map(e => e.textContent)")
    assert texts == ["At a glance", "In words", "Memory of one idle instance"]
    assert bottom <= 1000


def test_the_table_at_a_glance_has_the_figures():
    result = make(metrics=("boot",), faults=False)
    ((_, question),) = words.headlines(result)
    host, container, vm = glance.cells(result, question)
    assert re.fullmatch(r"1\d\d\.\d ms", host.value)
    assert host.comparison == ""
    assert re.fullmatch(r"1\.0\d times", container.comparison)
    assert vm.value.endswith(" s")
    assert re.fullmatch(r"2\d\.\d times", vm.comparison)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("more", r"[\d.]+ times"),
        ("less", r"[\d.]+ times"),
        ("equal", "equal within 3 %"),
        ("small", "a difference, below 3 %"),
        ("undecided", "no difference shown"),
        ("few", r"too few rounds|more in every run"),
        ("invalid", "not valid"),
    ],
)
def test_a_verdict_determines_the_text_below_a_figure(verdict, said):
    result = make(metrics=("boot",))
    changed = replaced(result, ratios=tuple(replaced(one, verdict=verdict) for one in result.ratios))
    for cell in glance.cells(changed, words.headlines(result)[0][1])[1:]:
        assert re.fullmatch(said, cell.comparison)


@pytest.mark.parametrize(("cold", "said"), [(True, "cold: files of the start evicted"), (False, "warm")])
def test_the_caption_of_the_table_at_a_glance(cold, said):
    result = make(runs=2, metrics=("boot",))
    text = page(finished(result, plan=replaced(result.plan, cold=cold)))
    assert f"Medians and slopes of 2 rounds, {said}" in text


def test_more_is_better_is_mentioned():
    found = {one.heading: one.better for one in sections(make(runs=2, metrics=("boot", "io")))}
    assert found["Start to first answer"] == ""
    assert found["Disk: reads"] == "more is better"


def test_a_mode_without_an_answer():
    result = make(runs=2, metrics=("boot",))
    left = finished(result, samples=tuple(one for one in result.samples if one.mode != "host"))
    cells = glance.cells(left, words.headlines(left)[0][1])
    assert cells[0] == ("", "no answer")
    assert cells[1].comparison == ""  # now the first mode
    assert cells[2].comparison == "more in every run"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("after 2.30 s, 95 % of 4 KiB", "after 2.30_s, 95_% of 4_KiB"),
        ("in 3 seconds, 5 minutes, 1 Boat", "in 3 seconds, 5 minutes, 1 Boat"),
    ],
)
def test_a_number_stays_with_its_unit(text, found):
    assert glance.tight(text).replace("\N{NO-BREAK SPACE}", "_") == found


def test_a_cell_has_its_interval_on_a_line_of_its_own():
    assert glance.stacked("10 ms (9 ms to 11 ms), n=30, 2 failed") == glance.tight(
        "10 ms\n9 ms to 11 ms, n=30, 2 failed"
    )
    assert glance.stacked("- (not observed in this mode)") == "- (not observed in this mode)"
    assert glance.stacked("1.02 (0.95 to 1.07)") == "1.02 (0.95 to 1.07)"


def test_code_in_a_text_is_marked_and_nothing_else():
    assert glance.coded("the line `<b>` & <i>") == "the line <code>&lt;b&gt;</code> &amp; &lt;i&gt;"
