"""What the tests of the documents read out of a page."""

import re
from pathlib import Path

from dev import site
from dev.paths import REPO

PAGES = [REPO / page for page in site.pages()]


def title(page: Path) -> str:
    return str(page.relative_to(REPO))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Where a link can lead within *page*: its headings, as repository hosts and the site's builder name them."""
    headings = re.findall(r"^#{1,6} +(.*?) *$", prose(page), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[ -]+", "-", re.sub(r"[^\w\- ]", "", heading)) for heading in plain}
