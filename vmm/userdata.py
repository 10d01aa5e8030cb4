"""The user's own user-data, `vm.cloud_init`: judged before a start, since a guest would only log what is wrong.

cloud-init knows what a part is by how it begins, see
https://cloudinit.readthedocs.io/en/latest/explanation/format.html.
"""

from __future__ import annotations

import os
from email import message_from_string
from email.message import Message
from email.mime.text import MIMEText
from typing import NamedTuple

from vmctl import textfile, yamlfile
from vmctl.errors import SpecError

BEGINNINGS = (
    *("#cloud-config", "#!", "#cloud-boothook", "#include", "#part-handler", "## template: jinja"),
    *("Content-Type: multipart/", "MIME-Version:"),
)


class Extra(NamedTuple):
    """What is added to our own user-data."""

    part: Message
    users: bool  # it says itself which users there are


def load(path: str) -> Extra:
    """Return the file's content as a part of user-data. Raises SpecError that names file and line."""
    text = textfile.decoded(textfile.read(path, "user-data"), path, "user-data")
    if not text.startswith(BEGINNINGS):
        raise SpecError(f"{path} is no user-data of cloud-init", hint="begin it with the line #cloud-config")
    if text.startswith(BEGINNINGS[-2:]):
        return Extra(message_from_string(text), users=False)
    return Extra(text_part(os.path.basename(path), "plain", text), users=_names_users(path, text))


def text_part(name: str, subtype: str, text: str) -> Message:
    """Return a part of a MIME message. As plain text: cloud-init looks at how it begins.

    In base64 where a line would not survive as it is: a carriage return is the end of one.
    """
    part = MIMEText(text, subtype, "us-ascii" if text.isascii() and "\r" not in text else "utf-8")
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part


def _names_users(path: str, text: str) -> bool:
    """Judge a cloud-config and return whether it has the key `users`."""
    first_line = text.partition("\n")[0].strip()
    if first_line != "#cloud-config":
        return False
    config = yamlfile.read_mapping(path, "cloud-config", "packages: [htop]")
    for key in ("users", "write_files", "runcmd", "bootcmd"):
        if not isinstance(config.get(key, []), list):
            raise SpecError(
                f"{path}: the key {key}: expected a list", hint="cloud-init's documentation shows its items"
            )
    return "users" in config
