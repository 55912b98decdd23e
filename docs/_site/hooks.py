"""What is on the site beside the pages of docs/: the repository's other pages, what they link to, and the contract.

Pages stay as they are read in the repository, with links that lead through it; they are led to the same places of the
site while it is built. A link that leads nowhere ends the build (`mkdocs build --strict`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import protos
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

# Where pages from outside docs/ stand on the site.
PAGES = {
    "README.md": "index.md",
    "README.zh-CN.md": "zh/index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "deploy/README.md": "deploy.md",
    "docker/README.md": "docker.md",
}

_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the other pages, the contract, and every file of the repository that a page links to."""
    for path, where in PAGES.items():
        if (ROOT / path).exists():
            files.append(File.generated(config, where, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "reference/rpc.md", content=protos.reference(ROOT / "proto")))
    for page in list(files.documentation_pages()):
        for target in _targets(page):
            where = _place(target)
            if files.get_file_from_path(where) is None and (ROOT / target).exists():
                files.append(_added(config, where, ROOT / target))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page, which are those of the repository, to the same places of the site."""
    del config, files
    origin = _origin(page.file)
    if origin is None:
        return markdown
    folder = posixpath.dirname(page.file.src_uri)

    def led(link: re.Match[str]) -> str:
        opening, path, anchor, closing = link.groups()
        target = _target(origin, path)
        if target is None:
            return link[0]
        return f"{opening}{posixpath.relpath(_place(target), folder or '.')}{anchor or ''}{closing}"

    return _outside_code(markdown, led)


def _targets(page: File) -> list[str]:
    """The paths in the repository that a page links to."""
    origin = _origin(page)
    if origin is None:
        return []
    found: list[str] = []

    def noted(link: re.Match[str]) -> str:
        if (target := _target(origin, link[2])) is not None:
            found.append(target)
        return link[0]

    _outside_code((ROOT / origin).read_text("utf-8"), noted)
    return found


def _target(origin: str, path: str) -> str | None:
    """The path in the repository that a link of a page means; None of one that leads out of it."""
    if "://" in path or path.startswith("mailto:"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))


def _outside_code(markdown: str, led: Callable[[re.Match[str]], str]) -> str:
    """A page with its links replaced, but for those in blocks of code."""
    parts, at = [], 0
    for block in _FENCED.finditer(markdown):
        parts += [_LINK.sub(led, markdown[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, _LINK.sub(led, markdown[at:])])


def _origin(page: File) -> str | None:
    """Where a page is in the repository; None where it is made by a program."""
    if page.abs_src_path is None:
        return None
    return Path(page.abs_src_path).resolve().relative_to(ROOT).as_posix()


def _place(target: str) -> str:
    """Where a path of the repository is on the site."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    readme = posixpath.join(target, "README.md")
    if target in PAGES or readme in PAGES:
        return PAGES.get(target) or PAGES[readme]
    return f"source/{target}.md" if (ROOT / target).is_dir() else f"source/{target}"


def _added(config: MkDocsConfig, where: str, source: Path) -> File:
    """A file of the repository as it is; of a folder, a page with the names of what is in it."""
    if source.is_dir():
        names = "\n".join(
            f"- `{each.name}`" for each in sorted(source.iterdir()) if not each.name.startswith(("_", "."))
        )
        title = source.relative_to(ROOT).as_posix()
        unlisted = InclusionLevel.NOT_IN_NAV
        return File.generated(config, where, content=f"# {title}\n\n{names}\n", inclusion=unlisted)
    return File.generated(config, where, abs_src_path=str(source))
