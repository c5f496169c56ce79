"""Laws of the repository: its text is fit for strangers, every module says its purpose, links lead somewhere.

Each law is a function that finds offences in any text, tried first on a text that has one.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "src" / "laconic"

# Written in pieces, so that this file is as clean as the others.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("pypi", "python", "org"),
        ("download", "pytorch", "org"),
        ("anaconda", "org"),
        ("registry", "npmjs", "org"),
    ]
)
ONE_MACHINES_PATH = re.compile(
    r"(?<![\w.~$}\-/])/(?:(?:root|work|workspace|builds|Users)/|opt/(?!homebrew/)|home/(?!pi/))[\w.\-]+"
)


def committed_files() -> list[Path]:
    """Every file under version control; in a copy without git, every file that looks like a source."""
    git = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if git.returncode == 0:
        paths = [REPOSITORY / name for name in git.stdout.split("\0") if name]
    else:
        folders = ("src", "tests", "scripts", "docs", "benchmarks", "examples", ".ci")
        paths = [p for f in folders for p in (REPOSITORY / f).rglob("*") if "__pycache__" not in p.parts]
        paths += REPOSITORY.glob("*.*")
    return sorted(p for p in paths if p.is_file())


def texts() -> Iterator[tuple[str, str]]:
    """Name and content of every committed text file."""
    for path in committed_files():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            yield str(path.relative_to(REPOSITORY)), content.decode("utf-8", "replace")


def foreign_names(text: str) -> list[str]:
    """What only one machine knows: registry hosts and absolute paths."""
    return [h for h in REGISTRY_HOSTS if h in text] + [m[0] for m in ONE_MACHINES_PATH.finditer(text)]


def broken_links(text: str, folder: Path) -> list[str]:
    """Relative links of a Markdown text that lead to no file."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    targets = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", prose)
    targets += re.findall(r"^\[[^\]]+\]:\s*(\S+)", prose, re.MULTILINE)
    targets += re.findall(r"<(?:img|a)\s[^>]*(?:src|href)=\"([^\"]+)\"", prose)
    paths = [t.split("#")[0] for t in targets if not re.match(r"[a-z][a-z0-9+.\-]*:", t)]
    return [p for p in paths if p and not (folder / p).exists()]


def purpose(source: str) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0].strip()


def public_modules() -> list[Path]:
    return sorted(
        p
        for p in PACKAGE.rglob("*.py")
        if not any(part.startswith("_") and part != "__init__.py" for part in p.relative_to(PACKAGE).parts)
    )


# --- the finders find --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_a_registry_host_is_found(host: str) -> None:
    assert foreign_names(f"pip install -i https://{host}/simple x") != []


@pytest.mark.parametrize("folder", ["work/main", "root/.cache", "home/ann", "opt/wheels", "Users/ann"])
def test_an_absolute_path_of_one_machine_is_found(folder: str) -> None:
    for text in ("see /{}", '"/{}/x"', "file:/{}", "(/{})", "=/{}/y"):
        assert foreign_names(text.format(folder)), text


@pytest.mark.parametrize(
    "text", ["a/work/b", "../shared/data", "https://x.example/work/y", "/home/pi/x", "/dev/null"]
)
def test_an_ordinary_path_is_not(text: str) -> None:
    assert foreign_names(text) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    text = (
        "[a](there.md) [b](gone.md) ![c](gone.png) [d](there.md#x) [e](#y) [f](https://x.example/z)\n"
        "[g]: gone-too.md\n`[h](code)`\n```\n[i](code)\n```\n"
    )
    assert broken_links(text, tmp_path) == ["gone.md", "gone.png", "gone-too.md"]


def test_a_module_without_a_purpose_is_found() -> None:
    assert purpose("x = 1\n") == ""
    assert purpose('"""\nWhat it does.\n\nMore."""\n') == "What it does."


# --- the laws ----------------------------------------------------------------------------------------------


def test_committed_files_name_no_registry_and_no_machine() -> None:
    found = {name: names for name, text in texts() if (names := foreign_names(text))}
    assert found == {}
    assert "pyproject.toml" in dict(texts()), "nothing was looked at"


def test_every_public_module_says_its_purpose() -> None:
    modules = public_modules()
    assert len(modules) >= 10
    # Three words at the least: a package's name says nothing that its folder has not said.
    vague = {
        str(m.relative_to(REPOSITORY)): line
        for m in modules
        if len((line := purpose(m.read_text())).split()) < 3
    }
    assert vague == {}


def test_every_relative_link_leads_to_a_file() -> None:
    pages = [p for p in committed_files() if p.suffix == ".md"]
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {p.name for p in pages}
    broken = {
        str(p.relative_to(REPOSITORY)): links
        for p in pages
        if (links := broken_links(p.read_text(), p.parent))
    }
    assert broken == {}


def test_the_changelog_knows_the_current_version() -> None:
    version = re.search(r'^__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    assert version
    assert re.search(
        rf"^## \[{re.escape(version[1])}\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_no_committed_file_is_a_leftover() -> None:
    names = [str(p.relative_to(REPOSITORY)) for p in committed_files()]
    assert [n for n in names if re.search(r"(\.(pyc|orig|rej|log|swp)|~|\.DS_Store)$", n)] == []
