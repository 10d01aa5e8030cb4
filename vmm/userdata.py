"""The user's user-data, `vm.cloud_init`, checked before a start: a guest would only log what is wrong with it.

cloud-init recognizes the kind of a part by its first line, see
https://cloudinit.readthedocs.io/en/latest/explanation/format.html.
"""

from __future__ import annotations

import os
from email import message_from_string
from email.message import Message
from email.mime.text import MIMEText
from typing import NamedTuple

from vmctl.errors import SpecError
from vmctl.spec import textfile, yamlfile

BEGINNINGS = (
    *("#cloud-config", "#!", "#cloud-boothook", "#include", "#part-handler", "## template: jinja"),
    *("Content-Type: multipart/", "MIME-Version:"),
)


class Extra(NamedTuple):
    """A part to add to our user-data."""

    part: Message
    users: bool  # whether it has the key `users`


def load(path: str) -> Extra:
    """Return the file's content as a part of user-data. Raises SpecError that names file and line."""
    text = textfile.decoded(textfile.read(path, "user-data"), path, "user-data")
    if not text.startswith(BEGINNINGS):
        raise SpecError(f"{path} is not user-data of cloud-init", hint="the first line must be #cloud-config")
    if text.startswith(BEGINNINGS[-2:]):
        return Extra(message_from_string(text), users=False)
    return Extra(text_part(os.path.basename(path), "plain", text), users=_names_users(path, text))


def text_part(name: str, subtype: str, text: str) -> Message:
    """Return a part of a MIME message. With subtype plain, cloud-init recognizes the part by its first line.

    The part is in base64 if it is not ASCII or has a carriage return, which would become the end of a line.
    """
    part = MIMEText(text, subtype, "us-ascii" if text.isascii() and "\r" not in text else "utf-8")
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part


def _names_users(path: str, text: str) -> bool:
    """Check a cloud-config and return whether it has the key `users`. Raises SpecError."""
    first_line = text.partition("\n")[0].strip()
    if first_line != "#cloud-config":
        return False
    config = yamlfile.read_mapping(path, "cloud-config", "packages: [htop]")
    for key in ("users", "write_files", "runcmd", "bootcmd"):
        if not isinstance(config.get(key, []), list):
            raise SpecError(
                f"{path}: the key {key}: expected a list", hint="see cloud-init's documentation for its items"
            )
    return "users" in config
