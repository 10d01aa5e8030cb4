"""The page in a real browser: it draws every sample, escapes every text, and is readable at any width."""

import html
import json
import re

import msgspec
import pytest
from support.bench_results import finished, make, replaced
from support.browser import browse, chromium
from support.commands import ok

from bench import export
from bench import result as results
from bench.model import Refusal, Result
from bench.report import conclusions, memory, tables, words
from bench.report.page import embedded, page, sections

needs_browser = pytest.mark.skipif(chromium() is None, reason="chromium is not installed")
METRICS = ("boot", "memory", "disk", "density", "teardown")
HOSTILE = "</script><img src=x onerror=alert(1)><!-- ${{7*7}} $x_1$ \u2028 'é漢🦊\" & " + "n" * 300

# measures the page in frames of several widths; they have the origin of this script, which can read them
WRAPPER = """<!DOCTYPE html><title>w</title><pre id="measured"></pre><script>
const text = PAGE;
function light(colour) {
  const part = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
}
function contrast(one, other) {
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
function behind(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = e.ownerDocument.defaultView.getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
}
function measure(frame, width) {
  const page = frame.contentDocument, style = e => frame.contentWindow.getComputedStyle(e);
  const all = [...page.querySelectorAll("body *:not(script)")];
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  const texts = all.filter(e => own(e) && !["title", "desc", "style"].includes(e.localName));
  const points = {};
  for (const g of page.querySelectorAll("g[id*='-points-']")) points[g.id] = g.querySelectorAll("use").length;
  const ids = [...page.querySelectorAll("[id]")].map(e => e.id);
  const ends = [...page.querySelectorAll("[href], [src]")].map(e => e.getAttribute("href") || e.getAttribute("src"));
  const paper = style(page.body).backgroundColor;
  return {
    width, scroll: page.documentElement.scrollWidth, view: page.documentElement.clientWidth, paper,
    contrasts: texts.map(e => [contrast(e.namespaceURI.endsWith("svg") ? style(e).fill : style(e).color, behind(e)),
      e.textContent.slice(0, 40)]).sort((a, b) => a[0] - b[0]).slice(0, 3),
    modes: [1, 2, 3, 4, 5, 6].map(n => {
      const probe = page.createElement("i");
      probe.style.color = `var(--mode-${n})`;
      page.body.append(probe);
      return contrast(style(probe).color, paper);
    }),
    points, headings: [...page.querySelectorAll("h1, h2, h3, h4")].map(e => Number(e.localName[1])),
    twice: ids.filter((id, n) => ids.indexOf(id) !== n), outside: ends.filter(end => !/^(#|data:,$)/.test(end)),
    broken: ends.filter(end => end.length > 1 && end[0] === "#" && !page.getElementById(end.slice(1))),
    resources: frame.contentWindow.performance.getEntriesByType("resource").length,
    scripts: [...page.scripts].map(e => e.type), images: page.querySelectorAll("img, iframe, object, embed").length,
    charts: [...page.querySelectorAll("figure")].map(f => {
      const svg = f.querySelector("svg");
      const said = svg.getAttribute("aria-labelledby").split(" ").map(id => page.getElementById(id).textContent);
      const name = svg.querySelector("title").id.split("-")[0];
      return {name, role: svg.getAttribute("role"), said, rows: f.querySelectorAll("details table tbody tr").length};
    }),
    tables: [...page.querySelectorAll("table")].map(t => [t.caption.textContent.length,
      t.querySelectorAll("th:not([scope])").length, t.querySelectorAll("tbody th").length]),
    raw: page.getElementById("result").textContent, text: page.body.innerText, lang: page.documentElement.lang,
  };
}
const done = [];
for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px";
  frame.style.height = "900px";
  frame.srcdoc = text;
  frame.onload = () => {
    done.push(measure(frame, width));
    if (done.length === WIDTHS.length) document.getElementById("measured").textContent = JSON.stringify(done);
  };
  document.body.append(frame);
}
</script>"""


def hostile():
    """Return a result in which every text from outside is hostile."""
    result = make(runs=3, metrics=("boot",))
    named = [
        replaced(one, error=HOSTILE) if one.error else replaced(one, texts={**one.texts, "page": HOSTILE})
        for one in result.samples
    ]
    return finished(
        result,
        samples=(*named, replaced(named[0], error=HOSTILE, round=3)),
        refusals=(Refusal(mode=HOSTILE, kind=HOSTILE, reason=HOSTILE),),
        host={**result.host, "cpu": HOSTILE, HOSTILE: HOSTILE},
        explained={HOSTILE: [[HOSTILE, HOSTILE]]},
        plan=replaced(result.plan, workload={**result.plan.workload, "name": HOSTILE}),
    )


@pytest.fixture(scope="module")
def result():
    return make(metrics=METRICS)


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """`look(text, dark=False, widths=...)` returns how a browser renders a page, per width."""

    def measured(text, *, dark=False, widths=(1280, 390)):
        folder = tmp_path_factory.mktemp("page")
        content = WRAPPER.replace("WIDTHS", json.dumps(widths)).replace("PAGE", as_script(text))
        (folder / "wrapper.html").write_text(content)
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
        dom, _ = browse(folder, f"file://{folder}/wrapper.html", "--dump-dom", "--virtual-time-budget=20000", *scheme)
        found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)
        return {one["width"]: one for one in json.loads(html.unescape(found[1]))}

    return measured


def as_script(text):
    """Return a text as a literal for a script in a page."""
    return json.dumps(text).replace("<", "\\u003c")


@pytest.fixture(scope="module")
def seen(look, result):
    return look(page(result))


@needs_browser
def test_the_browser_complains_of_nothing(tmp_path, result):
    path = tmp_path / "page.html"
    path.write_text(page(result))
    dom, log = browse(tmp_path, f"file://{path}", "--dump-dom")
    assert 'id="result"' in dom
    assert "CONSOLE" not in log, log
    path.write_text(page(result).replace("</body>", "<script>alert(1)</script><img src='http://192.0.2.1/x'></body>"))
    assert "CONSOLE" in browse(tmp_path, f"file://{path}", "--dump-dom")[1]  # so a message would be found


@needs_browser
def test_nothing_comes_from_outside(seen):
    for one in seen.values():
        assert (one["outside"], one["broken"], one["resources"], one["images"]) == ([], [], 0, 0)
        assert one["scripts"] == ["application/json"]


@needs_browser
def test_every_sample_is_drawn(seen, result):
    drawn = {}
    for number, (kind, question) in enumerate(words.headlines(result), 1):
        for place, mode in enumerate(result.plan.modes):
            counted = [one for one in result.of(kind, mode) if one.counts]
            ladder = sum(len(question.points(one)) for one in counted) if question.points else 0
            drawn[f"q{number}-points-{place}"] = ladder or sum(bool(question.values(one)) for one in counted)
    assert sum(drawn.values()) > 200
    for one in seen.values():
        assert one["points"] == drawn


@needs_browser
def test_charts_have_a_name_and_a_table(seen, result):
    for one in seen.values():
        assert len(one["charts"]) == len(words.headlines(result)) + 2  # where the time goes, and memory
        for chart in one["charts"]:
            assert chart["role"] == "img"
            assert all(len(text) > 5 for text in chart["said"]), chart
            drawn = [count for key, count in one["points"].items() if key.startswith(f"{chart['name']}-points-")]
            assert chart["rows"] == max(drawn, default=len(result.plan.modes))


@needs_browser
def test_the_structure_can_be_walked(seen):
    one = seen[1280]
    assert one["lang"] == "en"
    assert one["twice"] == []
    assert one["headings"][0] == 1
    assert one["headings"].count(1) == 1
    assert all(after <= before + 1 for before, after in zip(one["headings"], one["headings"][1:], strict=False))
    assert all(caption and not unscoped and heads for caption, unscoped, heads in one["tables"])


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast(look, result, dark):
    """WCAG 2.2: 4.5 for text (1.4.3), 3 for graphics (1.4.11)."""
    one = look(page(result), dark=dark, widths=[1280])[1280]
    assert (one["paper"] == "rgb(255, 255, 255)") != dark
    assert one["contrasts"][0][0] >= 4.5, one["contrasts"]
    assert min(one["modes"]) >= 3


@needs_browser
def test_nothing_is_wider_than_the_screen(seen, look):
    for one in (*seen.values(), *look(page(hostile())).values()):
        assert one["scroll"] <= one["view"], one["width"]


@needs_browser
def test_the_raw_data_is_the_result(seen, result):
    assert msgspec.json.decode(seen[390]["raw"], type=Result) == result


@needs_browser
def test_hostile_texts_stay_texts(look):
    result = hostile()
    (one,) = look(page(result), widths=[1280]).values()
    assert (one["images"], one["scripts"], one["outside"]) == (0, ["application/json"], [])
    assert one["twice"] == []
    assert "onerror=alert(1)><!-- ${{7*7}} $x_1$" in one["text"]
    assert msgspec.json.decode(one["raw"], type=Result) == result


def test_raw_data_cannot_end_its_element():
    text = embedded(hostile())
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text)["plan"]["workload"]["name"] == HOSTILE


def test_the_same_result_makes_the_same_page(result):
    assert page(result) == page(result)


def test_every_sentence_has_a_mode_and_an_interval(result):
    for section in sections(result):
        assert len(section.sentences) >= len(result.plan.modes)
    first = " ".join(sections(result)[0].sentences)
    assert "A container answers after" in first
    assert "A VM (TCG, emulated) answers after" in first
    assert "32 runs, 95 % interval" in first
    assert "2 runs failed" in first


def test_few_rounds_are_mentioned():
    text = page(make(runs=3, metrics=("boot",)))
    assert "Fewer than 30" in text
    assert "too few rounds to show a difference" in text
    assert "95 % interval 1" not in text


@pytest.mark.parametrize("verdict", ["more", "less", "equal", "small", "undecided", "few", "invalid"])
def test_a_verdict_decides_the_words(verdict):
    """The sentence depends on the verdict only, not on the numbers."""
    result = make(metrics=("boot",))
    changed = tuple(replaced(one, verdict=verdict) for one in result.ratios)
    text = " ".join(words.sentences(replaced(result, ratios=changed), words.headlines(result)[0][1]))
    assert ("the same as a plain process within 3 %" in text) == (verdict == "equal")
    assert ("longer than a plain process" in text) == (verdict in ("more", "less"))
    assert ("neither a difference to a plain process nor equality is shown" in text) == (verdict == "undecided")
    assert ("not valid" in text) == (verdict == "invalid")


@pytest.mark.parametrize(
    ("verdict", "delta", "text"),
    [
        (
            "more",
            1.0,
            "What differs between a VM (TCG, emulated) and a plain process: start to first answer (25.7 times",
        ),
        ("equal", 0.0, "Of a container and a plain process, start to first answer is equal within 3 %."),
        ("small", 0.3, "Of a container and a plain process, start to first answer is less than 3 % apart."),
        ("undecided", 0.1, "neither a difference nor equality of a container and a plain process is shown."),
        ("few", 0.4, "neither a difference nor equality of a container and a plain process is shown."),
        ("few", -1.0, "a plain process: start to first answer (less in every run)."),
        ("invalid", 0.0, "for start to first answer is not valid: cache or durability differs."),
    ],
)
def test_conclusions_follow_the_verdicts(verdict, delta, text):
    result = make(metrics=("boot",))
    changed = tuple(replaced(one, verdict=verdict, delta=delta) for one in result.ratios)
    found = conclusions.paragraph(replaced(result, ratios=changed))
    assert text in found
    assert ("What differs" in found) == (verdict == "more" or abs(delta) == 1)


def test_conclusions_include_what_is_not_known():
    result = make(runs=3, metrics=("boot", "memory"))
    lacking = tuple(
        replaced(one, value=None, low=None, high=None, why="too many") if one.mode == "host" else one
        for one in result.figures
    )
    found = conclusions.paragraph(replaced(result, figures=lacking, host={**result.host, "load_average": [22.0, 9, 9]}))
    assert "nothing is known here of a VM on KVM" in found
    assert "Fewer than 30 rounds have no interval" in found
    assert "its load was 22.0 on 2 processors" in found
    assert "there is no figure of a plain process" in found
    assert "What differs between a VM (TCG, emulated) and a container: " in found  # the first mode with an answer
    assert conclusions.paragraph(result) in html.unescape(page(result)).replace("\N{NO-BREAK SPACE}", " ")
    assert conclusions.paragraph(result) in export.markdown(result)


@pytest.mark.parametrize(
    ("mode", "sizes", "parts"),
    [
        (
            "vm",
            {"pss": 272, "pss_qemu": 268, "vmm": 139},
            {"QEMU itself": 139, "the guest's memory": 129, "other processes": 4},
        ),
        (
            "vm",
            {"pss": 272, "pss_qemu": 130, "vmm": 139},
            {"other processes": 272},
        ),  # a guest cannot have less than none
        ("host", {"pss": 46, "pss_workload": 13, "pss_supervisor": 33}, {"the workload": 13, "the supervisor": 33}),
        ("host", {"pss_workload": 13}, {}),
    ],
)
def test_the_parts_of_memory(mode, sizes, parts):
    result = make(metrics=("boot", "memory"))
    given = {f"memory.{name}_bytes": value for name, value in sizes.items()}
    known = [one for one in result.figures if not (one.mode == mode and one.key.startswith("memory."))]
    figure = next(one for one in result.figures if one.unit == "bytes")
    known += [replaced(figure, key=key, mode=mode, value=float(value)) for key, value in given.items()]
    assert memory.parts(replaced(result, figures=tuple(known)), mode) == parts


def test_no_memory_no_chart():
    assert memory.chart(make(metrics=("boot",))) is None


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        (0.4, ", from too few rounds to show a difference to a plain process."),
        (1.0, ", each run longer than every run of a plain process."),
        (-1.0, ", each run shorter than every run of a plain process."),
    ],
)
def test_too_few_rounds_give_no_multiple(delta, text):
    result = make(runs=3, metrics=("boot",))
    changed = replaced(result, ratios=tuple(replaced(one, delta=delta) for one in result.ratios))
    assert text in " ".join(words.sentences(changed, words.headlines(result)[0][1]))


def test_failures_are_only_in_their_table(result):
    failures = [one.error for one in result.samples if one.error]
    assert len(failures) > 1
    assert not [one for one in words.notes(result) if failures[0] in one]
    assert [row[-1] for row in tables.troubles(result).rows].count(failures[0]) == len(failures)


def test_the_first_run_is_shown_apart(result):
    text = page(result)
    assert "The very first run" in text
    first = min((one for one in result.samples if one.kind == "start" and one.mode == "vm"), key=lambda one: one.round)
    assert first.round < 1
    assert f"<td>{first.between_s('T0', 'T6'):.2f}\N{NO-BREAK SPACE}s</td>" in text


def test_a_result_without_charts_has_its_tables():
    assert "No measured metric has a chart" in page(
        replaced(make(runs=2), samples=(), figures=(), ratios=(), plan=replaced(make(runs=2).plan, metrics=()))
    )
    text = page(replaced(make(runs=2, metrics=("boot",)), samples=(), figures=(), ratios=()))
    assert "no answer (not measured)" in text
    assert "<svg" not in text


def test_the_command_writes_a_page_next_to_the_result(result, tmp_path):
    results.write(result, str(tmp_path))
    said = ok("bench", "report", str(tmp_path))
    assert said.strip() == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == page(result)
