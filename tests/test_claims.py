"""`vmctl lab claim`: words about figures, computed again."""

import json

import pytest
from support.commands import ok, refused, vmctl

from bench.claims import checking, published
from bench.claims.checking import RIGHT, WRONG, check
from vmctl.errors import SpecError

ROUNDED = "only because the figures are rounded"


@pytest.mark.parametrize(
    ("claim", "opposite"),
    [
        ("0.82 -> 0.6 s is 26.8 % less", "0.82 -> 0.6 s is 73.2 % less"),
        ("0.82 -> 0.6 s is 37 % faster", "0.82 -> 0.6 s is 73 % faster"),
        ("0.82 s to 600 ms is 27 percent faster", "0.6 -> 0.82 s is 27 % faster"),
        ("0.6 -> 0.82 s is 37 % slower", "0.6 -> 0.82 s is 73 % slower"),
        ("2.0 -> 1.0 s is 2x faster", "2.0 -> 1.0 s is 3x faster"),
        ("100 -> 50 req/s is 50 % slower", "100 -> 50 req/s is 50 % faster"),
        ("100 -> 200 req/s is 2 times faster", "200 -> 100 req/s is 2 times faster"),
        ("from 223 to 178 MiB is a reduction of 20 %", "from 223 to 178 MiB is a reduction of 80 %"),
        ("269 → 298 ns = 11 % more", "269 → 298 ns = 12 % more"),
        ("9 of 12.8 GB is 72 %", "9.0 of 12.8 GB is 72 %"),  # a digit more leaves less open
        ("131 MB is 44 times 3.0 MB", "131 MB is 48 times 3.0 MB"),
        ("70 + 34 + 40 ms = 144 ms", "70 + 34 + 40 ms = 125 ms"),
        ("1,000 - 200 ms = 0.8 s", "1,000 - 200 ms = 0.9 s"),
        ("5 x 36 = 180", "5 x 36 = 150"),
        ("43274 / 60 = 721.23", "43274 / 60 = 724.37"),
        ("0.79 ms is under 1 ms", "1.74 ms is under 1 ms"),
        ("2 s is at least 2 s", "2 s is more than 2 s"),
        ("10 -> 5 s is about 49 % less", "10 -> 5 s is about 40 % less"),
    ],
)
def test_a_claim_and_one_that_its_figures_do_not_give(claim, opposite):
    assert (check(claim).verdict, check(opposite).verdict) == (RIGHT, WRONG)


def test_what_the_words_would_need():
    answer = check("0.82 -> 0.6 s is 73 % faster")
    assert answer.gives == "26.8 % less, a factor of 1.37 (36.7 % more speed)"
    assert answer.needs.split("; ") == [
        "73 % less would need 221.4 ms instead of 600.0 ms",
        "73 % more speed would need 474.0 ms instead of 600.0 ms",
        "73 % is what is left, not the change",
    ]
    assert check("100 -> 50 ms is 100 % less").needs.endswith("divided by the second figure, not by the first")
    assert check("1 -> 3 s is 150 % less").needs == "150 % less is not possible"
    assert check("0.82 -> 0.6 s is 37 % faster").needs == "only as 37 % more speed"
    assert check("3 -> 1 s is 66 % less").needs == check("9 of 12.8 GB is 72 %").needs == ROUNDED
    assert check("3 -> 1 s is 67 % less").needs == check("9.0 of 12.5 GB is 72 %").needs == ""
    for needed, amount in (("0.2214 s", "73 % less"), ("474 ms", "73 % faster")):
        assert check(f"0.82 s -> {needed} is {amount}").verdict == RIGHT


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("it is much faster", "is not understood"),
        ("", "is not understood"),
        ("10 ms -> 3 MB is 5 % less", "units that do not compare"),
        ("1 s + 3 MB = 4 s", "units that do not compare"),
        ("0 -> 3 ms is 5 % more", "divides by 0"),
        ("1 -> 2 s is 100 %", "has no word such as"),
        ("1 + 2 x 3 = 9", "sums and products"),
        ("1" * 301, "at most 300 characters"),
        ("+".join("1" * 12) + " = 12", "is not understood"),
        (" + ".join("1" * 12) + " = 12", "more than 8 figures"),
        ("1e999 -> 2 s is 3 % less", "is not understood"),
    ],
)
def test_a_claim_that_cannot_be_checked(claim, message):
    with pytest.raises(SpecError, match=message):
        check(claim)


def test_the_forms_of_the_hint_are_right():
    assert [check(form).verdict for form in checking.FORMS] == [RIGHT] * len(checking.FORMS)


def test_published_claims():
    assert len(published.CLAIMS) == len({one.claim for one in published.CLAIMS}) == 15
    assert all(one.source and one.about for one in published.CLAIMS)
    assert sum(check(one.claim).verdict == WRONG for one in published.CLAIMS) == 6
    result = vmctl("lab", "claim", "--published", "--predict", stdin="r\n" * 15)
    assert (result.code, result.out.splitlines()[-1]) == (1, "9 of 15 predictions came true")


def test_the_command(tmp_path):
    assert "  right: 50 % less" in ok("lab", "claim", "2 -> 1 s is 50 % less")
    assert vmctl("lab", "claim", "2.0 -> 1.0 s is 60 % less").code == 1
    assert "what is understood: 0.82 -> 0.6 s" in refused("lab", "claim", "hello")
    path = tmp_path / "claims.yaml"
    path.write_text('- 2 -> 1 s is 50 % less\n- {claim: "2.0 -> 1.0 s is 60 % less", source: page 7}\n- "\\e[31mred"\n')
    result = vmctl("lab", "claim", "--file", str(path), "--format", "json")
    assert [one["verdict"] for one in json.loads(result.out)] == [RIGHT, WRONG, "not understood"]
    assert (result.code, json.loads(result.out)[1]["source"]) == (1, "page 7")
    assert "\x1b[31m" not in vmctl("lab", "claim", "--file", str(path)).out
    for text, message in (("a: 1", "is not a list of claims"), ("[]", "has 0 claims"), ("- {claims: 1}", "not a list")):
        path.write_text(text)
        assert message in refused("lab", "claim", "--file", str(path))
    assert "there is no file" in refused("lab", "claim", "--file", str(tmp_path / "no"))
    assert "give claims, or --file, or --published" in refused("lab", "claim")
