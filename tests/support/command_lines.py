"""Command lines of vmctl that texts name: where each is written, and its words."""

import ast
import io
import re
import shlex
import tokenize

CODE_SPAN = re.compile(r"`([^`]*)`")
CONSOLE_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
PROGRAM = re.compile(r"(?:^|(?<=[\s/\"'(=]))vmctl(?= )")
TYPED_IN_PROSE = re.compile(r"(?:^|(?<=: )|(?<=sudo ))vmctl(?= )")
OPTIONAL = re.compile(r"\[(--[^]]*)\]")
GLOBAL_FLAGS = {"--debug": 1, "--trace": 2}  # flag -> its number of words


def in_text(text, program=PROGRAM):
    """Yield the words of each command line in a shell command such as `sudo vmctl ps; vmctl df | cat`."""
    for match in program.finditer(text):
        words = _words(OPTIONAL.sub(r"\1", text[match.end() :]))
        while words and words[0] in GLOBAL_FLAGS:
            words = words[GLOBAL_FLAGS[words[0]] :]
        if words:
            yield words


def _words(text):
    """Return the words up to the next operator of the shell."""
    reader = shlex.shlex(text.split("\n")[0], posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    reader.commenters = "#"
    words = []
    try:
        for word in reader:
            if set(word) <= set(";|&()<>"):
                break
            words.append(word)
    except ValueError:  # an apostrophe
        return text.split()
    return words


def in_markdown(text):
    """Yield line number, words, and whether the line is typed (in a console block) of each command line."""
    for match in CONSOLE_BLOCK.finditer(text):
        first = text.count("\n", 0, match.start(1)) + 1
        for number, line in enumerate(match[1].splitlines(), first):
            if line.startswith("$ "):
                yield from ((number, words, True) for words in in_text(line))
    prose = re.sub(r"(?ms)^ *```.*?^ *```", lambda block: "\n" * block[0].count("\n"), text)
    yield from _in_spans(prose, 1)


def in_shell(text):
    """Yield the same for a Makefile or a shell script."""
    for number, line in enumerate(text.splitlines(), 1):
        code, _, comment = line.partition("#")
        yield from ((number, words, True) for words in in_text(code, re.compile("(?<=/)vmctl ")))
        yield from _in_spans(comment, number)


def in_python(text):
    """Yield the same for Python: code spans in comments and texts, and hints and examples as a whole."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from _in_spans(token.string, token.start[0])
    tree = ast.parse(text)
    inner = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {tree}
    commands = set(map(id, _whole_commands(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and node not in inner):
            shown = _shown(node)
            yield from _in_spans(shown, node.lineno)
            if id(node) in commands:
                outside = CODE_SPAN.sub("``", shown)
                yield from ((node.lineno, words, False) for words in in_text(outside, TYPED_IN_PROSE))


def _whole_commands(tree):
    """Yield the texts that may be a command line without a code span."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            yield from ast.walk(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Problem"):
            yield from (part for argument in node.args[1:] for part in ast.walk(argument))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXAMPLE":
            yield node.value


def _shown(node):
    """Return a text with NAME in place of each value that is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "NAME" for part in node.values)
    return node.value if isinstance(node.value, str) else ""


def _in_spans(text, first):
    for span in CODE_SPAN.finditer(text):
        number = first + text.count("\n", 0, span.start())
        yield from ((number, words, False) for words in in_text(" ".join(span[1].split())))
