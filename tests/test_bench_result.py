"""`result.json`: its schema, and files that are not results."""

import json
import os

import jsonschema
import msgspec
import pytest
from support.bench_results import make

from bench import result
from vmctl.errors import SpecError

SHIPPED = os.path.join(os.path.dirname(result.__file__), "result.schema.json")


def test_the_schema_that_is_shipped_is_that_of_the_code():
    with open(SHIPPED, encoding="utf-8") as file:
        assert json.load(file) == json.loads(json.dumps(result.schema()))


def test_a_result_matches_its_schema(tmp_path):
    path = result.write(make(metrics=("boot", "teardown")), str(tmp_path / "new" / "folder"))
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    jsonschema.Draft202012Validator(result.schema()).validate(document)
    del document["plan"]["seed"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(result.schema()).validate(document)


def test_a_result_is_read_back_as_it_was_written(tmp_path):
    done = make(metrics=("boot", "teardown"))
    path = result.write(done, str(tmp_path))
    assert result.read(path) == result.read(str(tmp_path)) == done


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "is not a result of this version"),
        (b"{}", "is not a result of this version"),
        (b'{"format": "vmctl bench 1"}', "its format is 'vmctl bench 1'"),
        (b'{"format": "vmctl bench 2"}', "is damaged"),
        (b'{"format": "vmctl bench 2", "id": 7}', "is damaged"),
        (b"[" * 100_000, "is damaged"),
    ],
)
def test_files_that_are_no_results(tmp_path, content, message):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(SpecError, match=message):
        result.read(str(tmp_path))


def test_a_file_cut_off_and_a_key_too_many(tmp_path):
    content = msgspec.json.encode(make(metrics=("boot", "teardown")))
    (tmp_path / "result.json").write_bytes(content[: len(content) // 2])
    with pytest.raises(SpecError, match="is damaged"):
        result.read(str(tmp_path))
    (tmp_path / "result.json").write_bytes(content[:-1] + b', "more": 1}')
    with pytest.raises(SpecError, match="is damaged"):
        result.read(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda document: document.update(created=1e300), r"\$.created"),
        (lambda document: document["samples"][2].update(started=-1e18), r"\$.samples\[2\].started"),
        (lambda document: document["plan"].update(runs=-1), r"\$.plan.runs"),
        (lambda document: document["plan"].update(instances=0), r"\$.plan.instances"),
        (lambda document: document["ratios"][0].update(verdict="splendid"), r"\$.ratios\[0\].verdict"),
    ],
)
def test_values_that_no_measurement_has(tmp_path, change, where):
    document = json.loads(msgspec.json.encode(make(metrics=("boot", "teardown"))))
    change(document)
    (tmp_path / "result.json").write_text(json.dumps(document))
    with pytest.raises(SpecError, match=f"is damaged: .*{where}"):
        result.read(str(tmp_path))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(result.schema()).validate(document)


def test_a_result_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        result.read(str(tmp_path))
