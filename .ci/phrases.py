#!/usr/bin/env python3
"""Report wordings that plain technical English avoids: FILE:LINE, the phrase, what to write instead.

It reads comments, docstrings, texts of programs, and documents. It skips names, inline code and code blocks, and in
tests also texts: they are input data, scripts, and messages of the program under test.
"""

import ast
import io
import itertools
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator

OTHERS = ("LICENSE", "bench/reference/", "tests/golden/", ".ci/phrases.py", "tests/test_phrases.py")

_WHERE = (
    r'(?:\b(?:None|[Ee]mpty|[Nn]othing|none|\w+Errors?)|"") where\b',
    r"\bwhere (?:no|none|nobody|nothing|neither|there|possible|needed|necessary|missing|given|wanted|mapped)\b",
    r"\bwhere (?:it|one|that) (?:cannot|can|could|does|do|did|has|had|fails?|(?:is|was) not)\b",
    r"\bwhere (?:it|they|one|that) (?:is|are|was|were) (?:missing|needed|wanted|given|set|known|so|possible)\b",
    r"(?:^|[.;] )Where [^.:?,]* (?:is|are|was|has|have|cannot|does|fails)\b[^.:?,]*, (?!and |as |which |with )",
)
_MORE = "longer|more|less|fewer|better|worse|older|newer|larger|smaller|greater|different|matter"
_NOT_A_NOUN = "already|and|are|as|at|below|but|by|for|from|has|if|in|is|it|on|or|so|than|that|the|through|to|when|with"
PHRASES = {  # a space matches a line break, too
    "|".join(_WHERE): "if or when (where is for places)",
    r"\b(?:says?|said|tells?|told)\b": "return, report, read, contain, specify, distinguish",
    r"\b(?:stands?|stood)\b(?!-| in the way)": "is, is written, is given, means",
    rf"\bof (?:its|their|our|your) own\b(?! (?!(?:{_NOT_A_NOUN})\b)[a-z])": "its own, separate; or leave it out",
    r"\bbeside\b": "next to, compared with",
    r"\b(?:whoever|whomever|whatever)\b": "the noun; any; no matter which",
    r"\bhowever (?:much|many|long|often|little|large|small)\b": "even if; any number of",
    r"\bnot even by\b": "even after",
    r"\bwithout a word\b": "without reporting why",
    r"\bfor want of\b": "for lack of",
    r"\b[Tt]here (?:is|are|was|were) none\b": "has no NOUN; NOUN does not exist",
    rf"(?<!here )\b(?:is|are|was|were) no (?!(?:{_MORE})\b)[a-z]+": "is not a NOUN",
    r"\b(?:can|cannot|could|may|might|to) be had\b": "is available",
    r"\blest\b": "so that ... not",
    r"\b(?:there|here)(?:of|upon|unto)\b": "of it; of the NOUN",
    r"\bshall\b": "must, will, should",
}
_PATTERNS = [(re.compile(pattern.replace(" ", r"\s")), better) for pattern, better in PHRASES.items()]
_HELP = [(re.compile(r"^of "), "a help text begins with its noun")]
_FINE = re.compile(r"``[^`]+``|`[^`]*`|\b(?:RFC|POSIX|specification|manual)\b[^.]{0,40}\ssays?\b|\bunless\stold\b")

Text = tuple[int, str, bool]  # the first line, the text, whether it is a help text of argparse


def python(source: str, is_test: bool) -> Iterator[Text]:
    """Yield the comments and texts of a Python file."""
    rows = source.splitlines()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    yield from comments((t.start[0], t.string, rows[t.start[0] - 1]) for t in tokens if t.type == tokenize.COMMENT)
    nodes = list(ast.walk(ast.parse(source)))
    helps = {node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "help"}
    bodies = [
        node.body[0] for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
    ]
    documents = {node.value for node in bodies if isinstance(node, ast.Expr)}
    for node in documents if is_test else nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value, node in helps


def comments(found: Iterable[tuple[int, str, str]]) -> Iterator[Text]:
    """Yield comments; those on lines of their own that follow each other are one text."""
    alone = ((row, text.lstrip("#! "), line.lstrip().startswith("#")) for row, text, line in found)
    numbered = ((row - index if is_alone else -row, row, text) for index, (row, text, is_alone) in enumerate(alone))
    for _, group in itertools.groupby(numbered, lambda item: item[0]):
        lines = list(group)
        yield lines[0][1], "\n".join(text for _, _, text in lines), False


def blocks(source: str, pattern: str) -> Iterator[Text]:
    """Yield what a pattern finds, such as the paragraphs of a document."""
    for match in re.finditer(pattern, source, re.DOTALL):
        yield source.count("\n", 0, match.start()) + 1, match[0], False


def texts(path: str, source: str) -> Iterator[Text]:
    """Yield what people read in a file."""
    if path.endswith(".py"):
        return python(source, path.startswith("tests/"))
    if path.endswith(".md"):
        without_code = re.sub(r"(?ms)^ *```.*?^ *```", lambda code: "\n" * code[0].count("\n"), source)
        return blocks(without_code, r"\S.*?(?=\n\s*\n|\Z)")
    if path.endswith((".c", ".h", ".css")):
        return blocks(source, r"/\*.*?\*/|(?<!:)//[^\n]*")
    if path.endswith((".yaml", ".toml", ".awk", "Makefile")) or source.startswith("#!"):
        found = ((row, re.search(r"(?:^|\s)(#.*)", line), line) for row, line in enumerate(source.splitlines(), 1))
        return comments((row, match[1], line) for row, match, line in found if match)
    return blocks(re.sub(r"<[^>]*>|\{[{%#].*?[}%#]\}", " ", source), r"[^\n]+") if path.endswith(".j2") else iter(())


def wrong(path: str) -> Iterator[str]:
    """Yield the phrases of a file."""
    with open(path, encoding="utf-8") as file:
        source = file.read()
    for first, text, is_help in texts(path, source):
        text = "\n".join(line.strip(" */") for line in text.split("\n"))
        text = _FINE.sub(lambda fine: re.sub(r"[^\n]", "~", fine[0]), text)
        for pattern, better in _PATTERNS + _HELP * is_help:
            for match in pattern.finditer(text):
                row = first + text.count("\n", 0, match.start())
                yield f"{path}:{row}: {' '.join(match[0].split())!r}: {better}"


def main() -> int:
    """Print the phrases of the files and folders given, by default of all; return 1 for any."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "--", *sys.argv[1:]]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [text for path in listed if not path.startswith(OTHERS) and os.path.isfile(path) for text in wrong(path)]
    print("".join(f"{text}\n" for text in found), end="")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
