"""The user's user-data, `vm.cloud_init`, as one part of ours: cloud-init itself decides in the guest what it is.

Only what cloud-init would ignore with a line in its log is refused here, by its own rules: `convert_string` of
cloudinit/user_data.py, `type_from_starts_with` of cloudinit/handlers, and
https://cloudinit.readthedocs.io/en/latest/explanation/format.html.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from email.mime.text import MIMEText

from vmctl.errors import SpecError
from vmctl.spec import textfile, yamlfile
from vmctl.spec.units import format_size

MAX_BYTES = 16 << 20  # after it is decompressed
_MESSAGE_BYTES = 4096  # cloud-init looks for MIME-Version in that many
_CONFIG = "#cloud-config"
_KINDS = (  # the longer ones first: the beginning decides, in any case of letters
    *("#cloud-config-archive", "#cloud-config-jsonp", _CONFIG, "#cloud-boothook", "#include", "#part-handler", "#!"),
    *("#upstart-job", "## template: jinja"),
)
_BY_CONTENT = ("text/plain", "text/x-not-multipart", "text/x-shellscript")  # types whose content decides the kind
_HINT = "the first line must be #cloud-config, or another one that cloud-init knows"


def load(path: str) -> str:
    """Return the file as a part of a MIME message, which cloud-init takes as it takes the file itself.

    Raises SpecError that names file and line.
    """
    raw = _decompressed(textfile.read(path, "user-data"), path)
    text = textfile.decoded(raw, path, "user-data")  # without a byte order mark, which cloud-init does not know
    if _is_message(text):
        _check_message(path, text)
        return text
    if not (kind := _kind(text)):
        raise SpecError(f"{path} is not user-data of cloud-init", hint=_HINT)
    if kind == _CONFIG:
        yamlfile.check(text, path, "cloud-config")
    return text_part(os.path.basename(path), "plain", text)


def text_part(name: str, subtype: str, text: str) -> str:
    """Return a part of a MIME message. With subtype plain, cloud-init recognizes the part by its beginning.

    The part is in base64 if it is not ASCII or has a carriage return, which would become the end of a line.
    """
    part = MIMEText(text, subtype, "us-ascii" if text.isascii() and "\r" not in text else "utf-8")
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part.as_string()


def _decompressed(raw: bytes, path: str) -> bytes:
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = unpacker.decompress(raw, MAX_BYTES)
    except zlib.error as error:
        raise SpecError(f"{path} is damaged: it cannot be decompressed ({error})") from None
    if not unpacker.eof:
        large = len(plain) >= MAX_BYTES
        reason = f"decompressed, it is larger than {format_size(MAX_BYTES)}" if large else "its end is missing"
        raise SpecError(f"{path} cannot be used: {reason}")
    return plain


def _kind(text: str) -> str:
    """Return the beginning by which cloud-init recognizes a part, "" if it does not."""
    beginning = text[:_MESSAGE_BYTES].lstrip().lower()
    return next((kind for kind in _KINDS if beginning.startswith(kind)), "")


def _is_message(text: str) -> bool:
    """Return whether the text is a MIME message; one without MIME-Version is taken too, as a part of ours."""
    beginning = text.encode()[:_MESSAGE_BYTES].lower()
    return b"mime-version:" in beginning or beginning.lstrip().startswith(b"content-type: multipart/")


def _check_message(path: str, text: str) -> None:
    known = False
    for number, (kind, content) in enumerate(_parts(message_from_string(text)), 1):
        if kind == _CONFIG:
            yamlfile.check(content, f"part {number} of {path}", "cloud-config")
        known = known or bool(kind)
    if not known:
        raise SpecError(
            f"{path} is a MIME message without a part that cloud-init knows",
            hint="its Content-Type must be multipart/mixed and name the boundary between the parts",
        )


def _parts(message: Message) -> Iterator[tuple[str, str]]:
    """Yield kind and text of each part of a message, with the content type as the kind if that decides."""
    for part in message.walk():
        if part.is_multipart() or part.get_content_maintype() == "multipart":
            continue
        content = part.get_payload(decode=True)
        text = content.decode(errors="replace") if isinstance(content, bytes) else ""
        declared = part.get_content_type()
        kind = _kind(text) if declared in _BY_CONTENT else declared
        yield _CONFIG if declared == "text/cloud-config" else kind, text
