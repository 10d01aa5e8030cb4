"""The light form of `json` is equal to the module, also in its errors; and the start path needs no more than these."""

import json
import subprocess
import sys

import pytest

from vmctl import light

TEXTS = [
    '{"a": [1, 2.5, null, true, "\\u00e9\\n"], "b": {}}',
    *(" [1]\n", '"x"', "NaN", "-Infinity", "1e999", "-0", '{"a":1,"a":2}', "", " ", "{", "[1,]", "1 2", '{"a":}'),
    *("nul", '"\x01"', "-", "[" * 100_000),
]
VALUES = [{"a": 1, "é": 'ü"\\'}, "x", 3, [], (), {1: 2, None: 3}, {"z": 1.5, "a": {"y": 2, "b": None}}, True, {1}]


def outcome(function, *arguments, **options):
    try:
        return repr(function(*arguments, **options))
    except (ValueError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"


def test_errors_are_equal_before_json_is_imported():
    program = "import sys; from vmctl.light import json\ntry: json.loads(sys.argv[1])\nexcept ValueError as e: print(e)"
    for text in ("{", "[1,]", '"'):
        done = subprocess.run([sys.executable, "-c", program, text], capture_output=True, text=True, check=True)
        assert f"JSONDecodeError: {done.stdout.strip()}" == outcome(json.loads, text)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
def test_a_text_is_read_as_json_does(text):
    assert outcome(light.json.loads, text) == outcome(json.loads, text)
    parsers = {"parse_int": str, "parse_float": len, "parse_constant": str.upper}
    assert outcome(light.json.JSONDecoder(**parsers).decode, text) == outcome(json.JSONDecoder(**parsers).decode, text)


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_value_is_written_as_json_does(value):
    for options in ({}, {"sort_keys": True, "separators": (",", ":")}, {"indent": 1}, {"default": str}):
        assert outcome(light.json.dumps, value, **options) == outcome(json.dumps, value, **options)
