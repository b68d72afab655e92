"""HTML that cannot be broken by what it says: elements, not text, are put together; text is escaped on the way out.

The standard library's ElementTree does both. A template engine with escaping (Jinja2) would too, at the price of a
dependency for one page whose body is tables.
"""

import xml.etree.ElementTree as ElementTree
from urllib.parse import quote

Element = ElementTree.Element
Child = Element | str | None


def tag(name: str, *children: Child, **attributes: str | None) -> Element:
    """An element.

    Args:
      name: its tag.
      *children: elements, or text that is shown as it is; None is left out.
      **attributes: `class_` is class, `data_label` is data-label; None is left out.
    """
    given = {k.rstrip("_").replace("_", "-"): v for k, v in attributes.items() if v is not None}
    element = Element(name, given)
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif child is not None:
            # ElementTree keeps text before the first child in the parent, later text behind the child before it.
            if len(element):
                element[-1].tail = (element[-1].tail or "") + child
            else:
                element.text = (element.text or "") + child
    return element


def row(cells: list[Child], *, heading: bool = False, numbers: tuple[int, ...] = ()) -> Element:
    """A table's row: its first cell heads it; those at the positions `numbers` are aligned as numbers."""
    made = tag("tr")
    for index, cell in enumerate(cells):
        scope = "col" if heading else "row" if index == 0 else None
        made.append(
            tag("th" if scope else "td", cell, scope=scope, class_="number" if index in numbers else None),
        )
    return made


def table(headings: list[Child], rows: list[list[Child]], label: str, *, numbers: tuple[int, ...] = ()) -> Element:
    """A table that scrolls sideways where it is too wide for the window, by keyboard as well."""
    made = tag("table", tag("thead", row(headings, heading=True, numbers=numbers)))
    made.append(tag("tbody", *(row(cells, numbers=numbers) for cells in rows)))
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label=label)


def link(path: str, text: str) -> Element:
    """A link to a file beside the page; whatever the path says, it stays a path."""
    return tag("a", text, href="./" + quote(path))


def render(elements: list[Element]) -> str:
    """The elements as HTML."""
    return "\n".join(ElementTree.tostring(element, encoding="unicode", method="html") for element in elements)
