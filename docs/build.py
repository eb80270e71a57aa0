"""Hooks of mkdocs: pages from files outside of docs/, and links to these files."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
#: File of the repository to the page that shows it.
PAGES = {
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "config/schema.yaml": "configuration.md",
}


def on_files(files, config):
    """Add the pages of PAGES."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = configuration(text) if source.endswith(".yaml") else moved(text, posixpath.dirname(source))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, **_):
    """Turn links to files outside of docs/ into links to their pages; generated pages have been done."""
    return markdown if page.file.generated_by else moved(markdown, "docs")


def moved(markdown: str, folder: str) -> str:
    """Rewrite the links of a page in `folder` of the repository. A file that is no page is named as code."""

    def link(found: re.Match) -> str:
        words, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / path).exists():
            return found[0]  # mkdocs says that it is broken
        page = PAGES.get(path) or (path.removeprefix("docs/") if re.fullmatch(r"docs/[\w-]+\.md", path) else None)
        if page:
            return f"[{words}]({page}{anchor or ''})"
        return f"`{path}`" if words == path else f"{words} (`{path}`)"

    return re.sub(r"\[([^\]]+)\]\((?!\w+:)([^)#\s]+)(#[^)]*)?\)", link, markdown)


def configuration(schema: str) -> str:
    """Return the list of all keys as a page with a heading for each section."""
    head, *sections = re.split(r"\n\n(?=#)", schema.strip())
    about = "\n".join(line.removeprefix("#").strip() for line in head.splitlines())
    parts = [f"# Configuration\n\n{about}\n"]
    for text in sections:
        name = re.search(r"^([a-z_]+):", text, re.M)[1]
        parts.append(f"## {name}\n\n```yaml\n{text}\n```\n")
    return "\n".join(parts)
