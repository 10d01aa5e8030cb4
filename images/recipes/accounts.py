"""Users and groups of an image by name: passwd(5) and group(5), read from its layers."""

from __future__ import annotations

from images.layer.lookup import View
from images.recipes.placement import Owner
from vmctl.spec import userid

_TABLE_BYTES = 1 << 20


def owner(view: View, text: str) -> Owner:
    """Return the ids of `user[:group]`, names or numbers. Raises ValueError for a name that the image does not know,
    and for a number that is not an id.

    Without a group it is the user's own by name, and by number the one of the same number, as Docker has it.
    """
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise ValueError(f"expected USER or USER:GROUP, got {text}")
    line = [] if userid.is_number(user) else _line(view, "etc/passwd", user, (2, 3))
    uid = userid.number(line[2] if line else user)
    if not group:
        return Owner(uid, userid.number(line[3]) if line else uid)
    return Owner(uid, userid.number(group if userid.is_number(group) else _line(view, "etc/group", group, (2,))[2]))


def _line(view: View, path: str, name: str, numbers: tuple[int, ...]) -> list[str]:
    content = b""
    for part in view.content(path):
        content += part
        if len(content) > _TABLE_BYTES:
            raise ValueError(f"the image's /{path} has more than {_TABLE_BYTES >> 20} MiB")
    for line in content.decode(errors="replace").splitlines():
        fields = line.split(":")
        if (
            fields[0] == name
            and len(fields) > max(numbers)
            and all(userid.is_number(fields[index]) for index in numbers)
        ):
            return fields
    raise ValueError(f"the image's /{path} has no {name}")
