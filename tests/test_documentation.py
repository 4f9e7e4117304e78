"""What the README and the pages of docs/ say is so; that they build, Sphinx says."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import avalanche.benchmarks
import matplotlib
import pytest
import yaml
from avalanche.core import BasePlugin, SupervisedPlugin
from documentation import (
    PAGES,
    ROOT,
    anchors,
    autodoc_names,
    blocks,
    commands,
    extras,
    links,
    prose,
    small_mnist,
)
from timings.options import parse as parse_timing

import avalanche_ext
from benchmarks.__main__ import COMMANDS, main
from benchmarks.recipes import RECIPES
from benchmarks.recipes.find import find_recipes
from benchmarks.runs.parser import parse

CALLBACKS = {
    name for name in dir(SupervisedPlugin) if name.startswith(("before_", "after_"))
}
WITH_PYTHON = [p for p in PAGES if any(b.language == "python" for b in blocks(p))]
COMMAND_LINES = [
    pytest.param(words, id=f"{page.stem}: {' '.join(words)}")
    for page in PAGES
    for words in commands(page)
]


def run_python(page: Path, names: dict) -> None:
    """Execute the blocks of a page; an error says where in the page it happened."""
    for block in blocks(page):
        if block.language == "python":
            text = "\n" * (block.line - 1) + block.text
            exec(compile(text, page, "exec"), names)  # noqa: S102


@pytest.mark.filterwarnings("ignore:.*have fewer")
@pytest.mark.filterwarnings("ignore:.*validation samples? is")
@pytest.mark.filterwarnings("ignore:.*have no free unit")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    matplotlib.use("agg")
    monkeypatch.setattr(avalanche.benchmarks, "SplitMNIST", small_mnist)
    monkeypatch.chdir(tmp_path)
    run_python(page, {"__name__": page.stem})


def test_the_readmes_example_resumes_where_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(avalanche.benchmarks, "SplitMNIST", small_mnist)
    monkeypatch.chdir(tmp_path)
    example = next(b.text for b in blocks(ROOT / "README.md") if "done" in b.text)
    for done in (0, 5):
        names = {}
        exec(example, names)  # noqa: S102
        assert names["done"] == done


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_a_command_can_be_typed_as_it_stands(words, tmp_path, capsys, monkeypatch):
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables of the environment
        words = words[1:]
    match words:
        case ["python", "-m", "benchmarks", "run", recipe, *options]:
            if "--like" in options:  # a run of ours, which is not there
                like = options.index("--like")
                assert Path(options[like + 1]).parent.name in RECIPES
                del options[like : like + 2]
            if "--help" not in options:
                parse(RECIPES[recipe], [*options, "--out", str(tmp_path)])
        case ["python", "-m", "benchmarks", "list", *recipes]:
            assert recipes == [] or find_recipes(recipes)
        case ["python", "-m", "benchmarks", command, *options]:
            assert command in COMMANDS
            with suppress(SystemExit):
                main([command, "--help"])
            told = capsys.readouterr().out
            for option in options:
                known = option.replace("-", "_").replace("__", "--", 1)
                assert option[:2] != "--" or option in told or known in told
        case ["python", "scripts/timing.py", *options]:
            monkeypatch.chdir(tmp_path)  # it tries whether it can write there
            parse_timing([o for o in options if o not in ("--device", "cuda")])
        case ["python", script, *options] if script.startswith("scripts/"):
            text = (ROOT / script).read_text()
            for option in options:
                assert not option.startswith("--") or f'"{option}"' in text
        case ["bash", script, *_]:
            assert (ROOT / script).is_file()
        case ["pip", "install", *options]:
            asked = re.findall(r"\[(.*?)\]", " ".join(options))
            assert {e for group in asked for e in group.split(",")} <= extras()
            assert "-c" not in options or (ROOT / "constraints.txt").is_file()
        case ["pytest" | "sphinx-build", *options]:
            given = [o for o in options if not o.startswith("-")]
            assert (ROOT / given[0]).exists() or given[0] == "golden"
        case _:
            pytest.fail(f"no rule for {words}")


@pytest.mark.parametrize(
    "words", [p for p in COMMAND_LINES if "--smoke" in p.values[0]]
)
def test_a_command_of_smoke_size_runs(words, tmp_path, capsys):
    assert main([*words[3:], "--threads", "1", "--out", str(tmp_path)]) == 0
    assert main(["table", str(tmp_path)]) == 0
    assert words[4] in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_are_of_languages_that_are_read(page):
    for block in blocks(page):
        match block.language:
            case "yaml":
                yaml.safe_load(block.text)
            case "text" | "python" | "bash" | "{eval-rst}" | "{toctree}":
                pass
            case language:
                pytest.fail(f"{page.name}:{block.line}: nothing reads {language!r}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_every_public_name_is_documented_once():
    documented = [name for page in PAGES for name in autodoc_names(page)]
    public = [name for name in avalanche_ext.__all__ if name != "__version__"]
    assert sorted(n for n in documented if n in public) == sorted(public)


def test_tables_of_callbacks_are_those_of_the_code():
    told = {
        name: re.findall(r"`(\w+)`", row)
        for page in PAGES
        for name, row in re.findall(
            r"^\| `(\w+Plugin)` \| ([^|]+) \|", prose(page), re.MULTILINE
        )
        if hasattr(avalanche_ext, name) and "`" in row
    }
    for name in avalanche_ext.__all__:
        plugin = getattr(avalanche_ext, name)
        if isinstance(plugin, type) and issubclass(plugin, BasePlugin):
            own = [key for key in vars(plugin) if key in CALLBACKS]
            assert told.get(name) == own, name


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_citation_names_the_papers_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    readme = (ROOT / "README.md").read_text()
    for paper in citation["references"]:
        assert paper["title"].partition(":")[0] in readme
        assert str(paper["year"]) in readme
