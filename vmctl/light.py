"""Parts of Python's `re`, `signal`, `json` and `importlib` that take no time to import: else it is 9 ms of each start.

`re` is imported when it is first used, and what `pattern` returns is compiled then. `signal` is the module in C below
Python's, without the enumerations. `json` is the code in C below Python's; what it cannot do, and every error, is left
to the module itself. `import_module` is that of `importlib`, which imports `warnings`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import json as json
    import re as re
    import signal as signal
    from importlib import import_module as import_module

    pattern = re.compile
else:
    import _json
    import _signal as signal  # noqa: F401
    import sys

    class _Later:
        """A module that is imported when something of it is used."""

        def __init__(self, name):
            self._name = name

        def __getattr__(self, attribute):
            return getattr(__import__(self._name), attribute)

    class _Pattern:
        """A regular expression that is compiled when it is first used; Python keeps the result."""

        def __init__(self, text):
            self._text = text

        def __getattr__(self, attribute):
            return getattr(re.compile(self._text), attribute)

    class _Decoder:
        """json.JSONDecoder."""

        strict, object_hook, object_pairs_hook = True, None, None

        def __init__(self, **parsers):
            self.parse_float, self.parse_int = float, int
            self.parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}.get
            vars(self).update(parsers)
            self._parsers = parsers
            self._scan = _json.make_scanner(self)

        def decode(self, text):
            """Return the value of a text. Raises json.JSONDecodeError, RecursionError, and what the parsers raise."""
            begin = len(text) - len(text.lstrip(_BLANKS))
            try:
                value, end = self._scan(text, begin)
                if not text[end:].strip(_BLANKS):
                    return value
            except (StopIteration, SystemError):  # the latter: the class of its error is not loaded
                pass
            return __import__("json").loads(text, **self._parsers)  # raises the error

    class _Json(_Later):
        """The functions of `json`."""

        JSONDecoder = _Decoder

        def loads(self, text):
            """Return the value of a text, or of bytes in UTF-8."""
            return _PLAIN.decode(text if isinstance(text, str) else text.decode())

        def load(self, file):
            """Return the value of a file."""
            return self.loads(file.read())

        def dumps(self, value, **options):
            """Return a value as text."""
            if not options.keys() <= {"sort_keys", "separators"}:
                return __import__("json").dumps(value, **options)
            between, after = options.get("separators", (", ", ": "))
            sorts, text = options.get("sort_keys", False), _json.encode_basestring_ascii
            return "".join(_json.make_encoder({}, _refuse, text, None, after, between, sorts, False, True)(value, 0))

    def import_module(name):
        """Return a module."""
        __import__(name)
        return sys.modules[name]

    def _refuse(value):
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

    _BLANKS = " \t\n\r"
    _PLAIN = _Decoder()
    re, json, pattern = _Later("re"), _Json("json"), _Pattern
