"""`bench verify`: an unchanged result passes, a result with any change does not."""

import json

import msgspec
import pytest
from support.bench_results import finished, make, replaced
from support.commands import ok, refused, vmctl

from bench import export, formatting
from bench import result as results
from bench.model import CONTROL, FORMAT, Figure, Step
from bench.report import page
from bench.verify import verify, verify_reports, verify_samples
from vmctl import __version__


@pytest.fixture(scope="module")
def result():
    return make(metrics=("boot", "teardown"))


@pytest.fixture
def folder(result, tmp_path):
    results.write(result, str(tmp_path))
    return tmp_path


def first(problems, *words):
    """Return the first problem, which has to contain all the words."""
    assert problems
    for word in words:
        assert word in problems[0], problems
    return problems[0]


@pytest.mark.parametrize("metrics", [("boot",), ("boot", "memory", "disk", "teardown")], ids=" ".join)
@pytest.mark.parametrize("runs", [1, 30])
def test_a_result_passes(metrics, runs):
    assert verify(make(runs=runs, metrics=metrics)) == []


@pytest.mark.parametrize("field", [name for name in Figure.__struct_fields__ if name not in ("key", "mode")])
def test_no_field_of_a_figure_can_be_changed(result, field):
    known = result.figures[0]
    value = getattr(known, field)
    other = f"{value}x" if isinstance(value, str) else 1.0 if value is None else value * (1 + 1e-6) + (value == 0)
    changed = replaced(result, figures=(replaced(known, **{field: other}), *result.figures[1:]))
    first(verify(changed), "figure boot.answer_s host", f"{field} is given as", "the samples give")
    assert len(verify(changed)) == 1


def test_the_last_digits_may_differ(result):
    known = result.figures[0]
    close = replaced(known, value=known.value * (1 + 1e-12))
    assert verify(replaced(result, figures=(close, *result.figures[1:]))) == []


def test_no_field_of_a_ratio_can_be_changed(result):
    known = result.ratios[0]
    for field, other in {"ratio": 9.0, "low": None, "high": 7.0, "delta": -1.0, "verdict": "equal"}.items():
        changed = replaced(result, ratios=(replaced(known, **{field: other}), *result.ratios[1:]))
        first(verify(changed), "ratio boot.answer_s container host", field)


def test_figures_and_ratios_are_missing_strange_or_twice(result):
    one, ratio = result.figures[0], result.ratios[0]
    first(verify(replaced(result, figures=result.figures[1:])), "figure boot.answer_s host is missing")
    first(verify(replaced(result, ratios=result.ratios[1:])), "ratio boot.answer_s container host is missing")
    first(verify(replaced(result, figures=(*result.figures, one))), "is given 2 times")
    invented = replaced(ratio, key="boot.invented_s")
    first(verify(replaced(result, ratios=(*result.ratios, invented))), "boot.invented_s", "does not follow from")


def test_the_controls_figure_is_one_of_them(result):
    *others, known = result.figures
    assert (known.key, known.mode) == ("control.work_s", "")
    better = replaced(known, value=known.value * 0.99)
    first(verify(replaced(result, figures=(*others, better))), "figure control.work_s", "value is given as")
    first(verify(replaced(result, figures=tuple(others))), "figure control.work_s", "is missing")


def test_a_result_of_before_has_no_figure_of_the_control(result, tmp_path):
    old = replaced(result, format="vmctl bench 2", figures=result.figures[:-1])
    path = results.write(old, str(tmp_path))
    assert results.read(path) == old
    assert verify(old) == []
    first(verify(replaced(old, figures=old.figures[1:])), "figure boot.answer_s host is missing")
    first(verify(replaced(old, figures=result.figures)), "figure control.work_s", "does not follow from")
    ok("bench", "verify", str(tmp_path))


@pytest.mark.parametrize("what", ["marks_ns", "round", "error"])
def test_no_sample_can_be_changed(result, what):
    place = next(n for n, one in enumerate(result.samples) if one.round == 5 and one.mode == "host")
    known = result.samples[place]
    other = {
        "marks_ns": {**known.marks_ns, "T6": known.marks_ns["T6"] + 10**9},
        "round": 6,
        "error": "it failed",
    }[what]
    changed = (*result.samples[:place], replaced(known, **{what: other}), *result.samples[place + 1 :])
    assert verify(replaced(result, samples=changed)) != []


def test_each_step_has_one_sample(result):
    samples, plan = result.samples, result.plan
    name = f"round {samples[-1].round}: {samples[-1].kind}"
    first(verify(replaced(result, samples=samples[:-1])), name, "is in the plan but has no sample")
    first(verify(replaced(result, samples=(*samples, samples[-1]))), name, "was taken 2 times")
    extra = replaced(samples[-1], round=99)
    first(verify(replaced(result, samples=(*samples, extra))), "round 99", "has a sample but is not in the plan")
    swapped = (samples[1], samples[0], *samples[2:])
    first(verify(replaced(result, samples=swapped)), "not in the order of the plan")
    twice = replaced(plan, steps=(*plan.steps, plan.steps[-1]))
    first(verify(replaced(result, plan=twice)), "plan: it has ", " 2 times")


def test_marks_are_in_order_but_for_the_race_of_t1_and_t4_in_earlier_results(result):
    def with_marks(form=FORMAT, **moved):
        known = result.samples[0]
        marks = {name: known.marks_ns[name] + moved.get(name, 0) for name in known.marks_ns}
        return verify(replaced(result, format=form, samples=(replaced(known, marks_ns=marks), *result.samples[1:])))

    known = result.samples[0].marks_ns
    assert with_marks("vmctl bench 3", T4=known["T1"] - known["T4"] - 50_000) == []
    first(with_marks(T4=known["T1"] - known["T4"] - 50_000), "T4 is 50000 ns before T1")
    first(with_marks(T6=known["T0"] - known["T6"] - 5), "T6 is", "before T4")
    first(with_marks(T8=known["T7"] - known["T8"] - 5), "T8 is 5 ns before T7")
    first(with_marks(T4=known["T0"] - known["T4"] - 5), "T4 is", "before T1")
    first(with_marks(T1=known["T0"] - known["T1"] - 5), "T1 is 5 ns before T0")


def test_a_plan_of_another_world(result):
    plan = result.plan
    first(verify(replaced(result, plan=replaced(plan, metrics=("boot", "luck")))), "the metric luck does not exist")
    strange = replaced(plan, steps=(*plan.steps, Step(kind="luck", mode="host", round=1)))
    first(verify(replaced(result, plan=strange)), "the kind of sample luck does not exist")
    strange = replaced(plan, steps=(*plan.steps, Step(kind="start", mode="zone", round=1)))
    first(verify(replaced(result, plan=strange)), "zone")


# The command


def test_the_command_reports_what_it_has_checked(folder, result):
    done = vmctl("bench", "verify", str(folder))
    assert (done.code, done.out) == (0, "")
    assert f"{len(result.figures)} figures and {len(result.ratios)} ratios" in done.err
    assert "all as stated" in done.err


def test_the_command_finds_an_edited_file(folder):
    path = folder / "result.json"
    document = json.loads(path.read_text())
    document["figures"][0]["value"] *= 0.9
    path.write_text(json.dumps(document))
    done = vmctl("bench", "verify", str(path))
    assert done.code == 1
    assert "boot.answer_s host: value is given as" in done.out
    assert "1 wrong" in done.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is damaged"),
        ("{}", "is not a result of this version"),
        ('{"format": "vmctl bench 1"}', "is not a result of this version"),
        ('{"format": "vmctl bench 2"}', "is damaged"),
        ('{"format": "vmctl bench 3"}', "is damaged"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, content, said):
    (tmp_path / "result.json").write_text(content)
    assert said in refused("bench", "verify", str(tmp_path))


def test_a_file_cut_short_is_refused(folder):
    path = folder / "result.json"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "is damaged" in refused("bench", "verify", str(path))


def test_the_number_of_rounds_is_held_against_the_plan(result):
    fewer = replaced(result, plan=replaced(result.plan, runs=result.plan.runs - 1))
    first(verify(fewer), f"plan: it has {result.plan.runs} rounds but declares {result.plan.runs - 1}")


def test_a_good_one_and_a_bad_one(folder, tmp_path):
    ok("bench", "verify", str(folder), str(folder / "result.json"))
    assert "cannot be read" in refused("bench", "verify", str(tmp_path / "nowhere"), str(folder))
    done = vmctl("bench", "verify", str(folder), str(tmp_path / "nowhere"))
    assert done.code == 125
    assert "all as stated" in done.err
    done = vmctl(
        "bench", "verify", str(tmp_path / "nowhere"), str(folder)
    )  # an unreadable file does not stop the others
    assert done.code == 125
    assert "all as stated" in done.err


def test_a_number_changed_in_a_report_is_found(folder, result):
    result = replaced(result, host={**result.host, "vmctl": __version__})
    results.write(result, str(folder))
    (folder / "report.md").write_text(export.markdown(result), encoding="utf-8")
    (folder / "report.html").write_text(page.page(result), encoding="utf-8")
    ok("bench", "verify", str(folder))
    text = formatting.quantity(result.figures[2].value, "s")
    for name, shown in (("report.md", text), ("report.html", text.replace(" ", "\N{NO-BREAK SPACE}"))):
        good = (folder / name).read_text(encoding="utf-8")
        assert shown in good
        (folder / name).write_text(good.replace(shown, "1.23 s"), encoding="utf-8")
        done = vmctl("bench", "verify", str(folder))
        assert done.code == 1
        assert f"{name} differs from what" in done.out
        assert verify_reports(replaced(result, host={**result.host, "vmctl": "0.0.1"}), str(folder)) == []
        (folder / name).write_text(good, encoding="utf-8")


def test_an_edited_sample_is_not_the_one_that_was_kept(result, tmp_path):
    """All figures are computed again from the edited samples: only the file of the measurement itself shows it."""
    place = next(
        n for n, one in enumerate(result.samples) if one.round == 5 and one.mode == "vm" and "T6" in one.marks_ns
    )
    known = result.samples[place]
    faster = replaced(known, marks_ns={**known.marks_ns, "T6": known.marks_ns["T5"] + 1000})
    edited = finished(result, samples=(*result.samples[:place], faster, *result.samples[place + 1 :]))
    assert verify(edited) == []
    results.write(edited, str(tmp_path))
    kept = tmp_path / "samples.jsonl"
    kept.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in result.samples))
    done = vmctl("bench", "verify", str(tmp_path))
    assert (done.code, f"round 5: {known.kind} vm is not the sample in samples.jsonl" in done.out) == (1, True)
    assert verify_samples(result, str(tmp_path)) == []
    kept.write_bytes(kept.read_bytes()[: kept.read_bytes()[:-1].rfind(b"\n") + 1])
    first(verify_samples(result, str(tmp_path)), f"has {len(result.samples) - 1} samples")
    kept.write_bytes(b"{}\n")
    first(verify_samples(result, str(tmp_path)), "is damaged")


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("start", {"values": {"pss_bytes": -364.0 * 1024}}, "pss_bytes is -372736, below 0"),
        ("start", {"marks_ns": {"T0": -5}}, "T0 is before the start of the clock"),
        ("start", {"series": {"disk_bytes": [1.0, -1.0]}}, "disk_bytes has a value below 0"),
        (CONTROL, {"values": {"work_s": 0.01, "cpu_s": 0.05}}, "used more of one processor than the time it took"),
    ],
)
def test_impossible_values(result, kind, changes, said):
    place = next(n for n, one in enumerate(result.samples) if one.kind == kind and one.counts)
    strange = replaced(result.samples[place], **changes)
    edited = finished(result, samples=(*result.samples[:place], strange, *result.samples[place + 1 :]))
    assert any(said in problem for problem in verify(edited)), verify(edited)
