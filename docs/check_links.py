"""Checks that every link inside the built documentation leads to a file, and to an anchor that is there.

python docs/check_links.py docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the anchors in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value and tag != "use":
                self.links.append(value)


def broken_links(root: Path) -> list[str]:
    """A line for each link that leads nowhere."""
    root = root.resolve()
    pages = {path: Page(path) for path in root.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            where = f"{path.relative_to(root)}: {link}"
            if not target.is_file():
                found.append(f"{where}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{where}: no such anchor")
    return sorted(set(found))


def main() -> int:
    broken = broken_links(Path(sys.argv[1]))
    print("\n".join(broken) or "all links inside the site are good")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
