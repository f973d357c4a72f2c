"""The site has every page, once, and each link of a page leads somewhere: to a file, and in it to a heading."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev import site
from dev.paths import REPO
from tests.unit.docs.pages import PAGES, anchors, prose, title

CONFIG = tomllib.loads(site.CONFIG.read_text())["project"]


def listed(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else listed(target)


def links(page: Path) -> list[str]:
    return re.findall(r"\]\((?!\w+:)([^)\s]+)\)", prose(page))


def test_each_page_is_in_the_navigation_once():
    assert sorted(listed(CONFIG["nav"])) == sorted(str(page) for page in site.pages()), "write it into docs/site.toml"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_each_link_leads_to_a_file_and_to_a_heading(page: Path):
    lost = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if target.is_dir():
            target = target / "README.md"
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_a_list_begins_after_an_empty_line(page: Path):
    """The site's Markdown would join it to the paragraph; hosts of repositories would not."""
    item = re.compile(r" *([-*]|\d+\.) ")
    lines = prose(page).splitlines()
    joined = [
        line
        for before, line in itertools.pairwise(lines)
        if re.match(r"([-*]|\d+\.) ", line) and before.strip() and not item.match(before) and before[0] not in " #"
    ]
    assert joined == []


def test_links_to_folders_become_links_to_their_pages():
    home = site.copies()[Path("README.md")].decode()
    assert "](examples/README.md)" in home
    assert "](examples/)" not in home


def test_what_a_page_links_to_is_copied_beside_it():
    copied = site.copies()
    assert {Path("LICENSE"), Path("docs/chain.svg"), Path("operator/largeforge/api/probes.py")} <= copied.keys()
    assert copied[Path("LICENSE")] == (REPO / "LICENSE").read_bytes()


def test_nothing_of_the_site_is_fetched_from_elsewhere():
    text = site.CONFIG.read_text() + (REPO / site.STYLE).read_text()
    assert CONFIG["theme"]["font"] is False
    assert "://" not in text
