"""Hooks of mkdocs: files outside docs/ that are part of the site.

Pages link to ``../paper_figs/NAME.png``, which works in the repository. On the site the figures are at ``paper_figs/``.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"CHANGELOG.md": "changelog.md", "MIGRATION.md": "migration.md"}


def on_files(files, config):
    """Add the figures and the pages of the repository's root."""
    for figure in sorted((ROOT / "paper_figs").glob("*.png")):
        files.append(File.generated(config, f"paper_figs/{figure.name}", abs_src_path=str(figure)))
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, **_):
    """Figures are one folder nearer on the site than in the repository."""
    return markdown.replace("../paper_figs/", "paper_figs/")
