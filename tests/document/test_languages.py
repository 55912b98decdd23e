"""Pages in Chinese say what those in English say: the same headings in number and level, and the same code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = sorted(page.name for page in (ROOT / "docs/tutorial").glob("*.md"))
PAIRS = [
    ("README.md", "README.zh-CN.md"),
    *((f"docs/tutorial/{name}", f"docs/zh/tutorial/{name}") for name in TUTORIAL),
]

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[english for english, _ in PAIRS])
def test_a_page_in_chinese_is_in_step_with_the_english_one(english: str, chinese: str) -> None:
    ours, theirs = ((ROOT / path).read_text("utf-8") for path in (english, chinese))
    assert _levels(theirs) == _levels(ours)
    assert _code(theirs) == _code(ours)
    assert _links(theirs) >= _links(ours)


def test_no_page_of_the_tutorial_is_without_the_other_language() -> None:
    names = [{page.name for page in (ROOT / folder).glob("*.md")} for folder in ("docs/tutorial", "docs/zh/tutorial")]
    assert names[0] == names[1]


def _levels(page: str) -> list[int]:
    """The levels of a page's headings."""
    return [len(hashes) for hashes in re.findall(r"^(#+) ", _BLOCK.sub("", page), re.MULTILINE)]


def _code(page: str) -> list[tuple[str, str]]:
    """The blocks of code, without their comments: those are in the page's language, as are pictures made of text."""
    return [
        (language, "\n".join(re.sub(r"\s*(#|//) .*$", "", line) for line in code.splitlines()))
        for _, language, code in _BLOCK.findall(page)
        if language
    ]


def _links(page: str) -> set[str]:
    """What a page links to of the repository, by the file's name: anchors and folders differ with the language."""
    targets = re.findall(r"\]\(([^)\s#]+)", _BLOCK.sub("", page))
    return {Path(target).name for target in targets if "://" not in target and not target.endswith(".zh-CN.md")}
