"""HTML from parts: text is escaped, tags are balanced, and nothing else can come out."""

import re
from html import escape

VOID_TAGS = frozenset({"br", "link", "meta", "wbr"})
# What XML and HTML do not take: control characters but for tab and line ends, and halves of surrogate pairs.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already; a plain str is escaped when it becomes part of an element."""


def clean_text(text: str) -> str:
    """Return text with a replacement mark for each character that a page cannot hold."""
    return FORBIDDEN.sub("\ufffd", text)


def make_element(tag: str, *children: str | None, **attributes: str) -> Markup:
    """Return an element; None among the children is nothing, `class_` is the attribute class, `_` in others is `-`."""
    head = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(clean_text(value), quote=True)}"'
        for name, value in attributes.items()
    )
    if tag in VOID_TAGS:
        return Markup(f"<{tag}{head}>")
    return Markup(f"<{tag}{head}>{join_markup(*children)}</{tag}>")


def join_markup(*children: str | None) -> Markup:
    """Return children one after the other, escaped where they are not HTML already."""
    return Markup(
        "".join(child if isinstance(child, Markup) else escape(clean_text(child)) for child in children if child)
    )


def make_list(items: list[str], **attributes: str) -> Markup:
    """Return an unordered list."""
    return make_element("ul", *(make_element("li", item) for item in items), **attributes)
