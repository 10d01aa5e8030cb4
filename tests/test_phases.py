"""The phases of a start: what is recorded, shown while it happens, and drawn afterwards."""

from vmctl import phases


def test_a_phase_begins_where_the_one_before_has_ended():
    marks = {
        "begun": 100,
        "image": 150,
        "T0": 200,
        "T1": 250,
        "clone": 260,
        "exec": 300,
        "T5": 310,
        "T6": 400,
        "T7": 900,
    }
    found = [(lap.phase.name, lap.begin_ns, lap.end_ns) for lap in phases.laps(marks)]
    assert found == [
        ("image", 100, 150),
        ("plan", 150, 200),
        ("clone", 200, 260),
        ("exec", 260, 300),
        ("output", 300, 310),
        ("answer", 310, 400),
    ]
    assert phases.laps({}) == []
    assert phases.laps({"T6": 5}) == []
    assert [lap.phase.name for lap in phases.laps({"T0": 5, "T6": 5})] == ["plan", "answer"]  # of an earlier version


def test_each_phase_has_a_title_and_one_line_of_why():
    for name, phase in phases.PHASES.items():
        assert phase.name == name
        assert 0 < len(phase.title) <= 14
        assert 0 < len(phase.why) <= 90
        assert "\n" not in phase.why
