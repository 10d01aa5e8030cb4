"""Texts compared with a file in tests/golden. `UPDATE_GOLDEN=1 pytest` writes them anew, to be read and committed."""

import os

FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "golden")


def compare(name, text):
    path = os.path.join(FOLDER, name)
    if os.environ.get("UPDATE_GOLDEN"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    with open(path, encoding="utf-8") as file:
        assert text == file.read(), f"not as in {path}"
