"""Users and groups of an image by name: passwd(5) and group(5), read from its layers."""

from __future__ import annotations

from images.layer.lookup import View
from images.recipes.placement import Owner


def owner(view: View, text: str) -> Owner:
    """Return the ids of `user[:group]`, names or numbers. Raises ValueError for a name that the image does not know.

    Without a group it is the user's own by name, and by number the one of the same number, as Docker has it.
    """
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise ValueError(f"expected USER or USER:GROUP, got {text}")
    line = [] if user.isdigit() else _line(view, "etc/passwd", user)
    uid = int(user) if user.isdigit() else int(line[2])
    if not group:
        return Owner(uid, int(line[3]) if line else uid)
    return Owner(uid, int(group) if group.isdigit() else int(_line(view, "etc/group", group)[2]))


def _line(view: View, path: str, name: str) -> list[str]:
    for line in b"".join(view.content(path)).decode(errors="replace").splitlines():
        fields = line.split(":")
        if (
            fields[0] == name
            and len(fields) > 3
            and fields[2].isdigit()
            and (path != "etc/passwd" or fields[3].isdigit())
        ):
            return fields
    raise ValueError(f"the image's /{path} has no {name}")
