"""Pages of HTML by Jinja2: each with the head of head.html.j2 and the style of style.css."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

_FOLDER = os.path.dirname(__file__)


def rendered(
    template: str, folder: str = _FOLDER, *, filters: Mapping[str, Callable[[str], str]] = {}, **values: Any
) -> str:
    """Return the page of a template in `folder`; texts in `values` are escaped, unless they are `markupsafe.Markup`."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    with open(os.path.join(_FOLDER, "style.css"), encoding="utf-8") as file:
        style = Markup(file.read())  # a trusted file
    return environment.get_template(template).render(style=style, svg=Markup, **values)  # pictures escape their texts
