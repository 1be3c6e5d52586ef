"""The READMEs are short, their links lead somewhere, and their commands and tables agree with the code."""

import re
import shlex
import statistics
from pathlib import Path

import pytest

from steps.evaluation.metrics import METRICS
from steps.project.mlproject import ROOT, entry_points
from tests.test_style import MAY_IMPORT

pytestmark = pytest.mark.unit

FRONT = ROOT / "README.md"
PAGES = sorted([FRONT, ROOT / ".github" / "CONTRIBUTING.md", *ROOT.glob("[pst]*/**/README.md")])
BY_NAME = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def code_blocks(page: Path) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without the two lines at its top."""
    lines = page.read_text().partition(f"\n## {heading}\n")[2].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, without punctuation, a hyphen for each space."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_front_page_has_at_most_120_lines():
    assert len(FRONT.read_text().splitlines()) <= 120


def test_the_front_page_names_every_entry_point():
    assert [name for name in entry_points() if f"`{name}`" not in FRONT.read_text()] == []


@BY_NAME
def test_sentences_are_short(page):
    lines = [line for line in without_code(page).splitlines() if not line.startswith(("|", "#"))]
    lengths = [len(sentence.split()) for sentence in re.split(r"(?<=[.!?:])\s+", "\n".join(lines))]
    assert max(lengths) <= 30
    assert statistics.median(lengths) < 16


@BY_NAME
def test_the_cells_of_tables_hold_facts_and_not_paragraphs(page):
    rows = re.findall(r"^\|(.*)\|$", without_code(page), re.MULTILINE)
    assert [cell for row in rows for cell in row.split(" | ") if len(cell.split()) > 15] == []


@BY_NAME
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@BY_NAME
def test_paths_in_the_text_exist(page):
    # Paths are relative to the project's folder. NAME and "mine" stand for a file of the reader.
    for name in re.findall(r"`((?:steps|tests|params|\.ci)/[\w./-]+)`", without_code(page)):
        assert "NAME" in name or "mine" in name or (ROOT / name).exists(), name


@BY_NAME
def test_commands_have_parameters_that_exist(page):
    for block in code_blocks(page):
        for command in re.findall(r"^mlflow run .*", block.replace("\\\n", " "), re.MULTILINE):
            words = shlex.split(command, comments=True)
            entry_point = words[words.index("-e") + 1] if "-e" in words else "main"
            values = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "-P")
            assert set(values) <= set(entry_points()[entry_point]), command
            required = {name for name, default in entry_points()[entry_point].items() if default is None}
            assert required <= set(values), command


def test_the_table_of_entry_points_has_every_parameter_and_its_default():
    rows = {row[0].strip("`"): row[1] for row in table(ROOT / "steps" / "README.md", "Entry points")}
    databricks = {
        row[0].strip("`"): row[1].strip("`") for row in table(ROOT / "params/databricks/README.md", "Parameters")
    }
    for entry_point, parameters in entry_points().items():
        if entry_point == "submit_databricks":
            assert databricks == {name: default or "" for name, default in parameters.items()}
            continue
        written = dict(re.findall(r"`(\w+)`(?: \(([^)]*)\))?", rows[entry_point]))
        assert written == {
            name: Path(default or "").name if default and "." in default else default or ""
            for name, default in parameters.items()
        }


def test_the_table_of_folders_has_the_rules_for_imports():
    rows = {}
    for folder, _, imports in table(ROOT / "steps" / "README.md", "Folders"):
        room = re.sub(r"\(.*\)|[`\[\]]", "", folder).strip("/").replace("/", ".")
        rows[room] = tuple(name.replace("/", ".") for name in imports.split(", ") if name != "nothing")
    assert rows.pop("*.py here") == ("everything",)
    assert rows == MAY_IMPORT


def test_the_table_of_metrics_is_the_one_of_the_code():
    rows = [
        [f"`{metric.name}`", metric.label, "higher" if metric.best == "max" else "lower"]
        + ["yes" if flag else "" for flag in (metric.of_reference, metric.tagged)]
        for metric in METRICS.values()
    ]
    assert table(ROOT / "steps/evaluation/README.md", "Metrics") == rows


def test_every_profile_is_on_the_front_page_and_in_the_table_of_profiles():
    profiles = {path.stem for path in (ROOT / "params").glob("*.yaml")}
    assert {row[0].strip("`") for row in table(ROOT / "params" / "README.md", "The profiles")} == profiles
    assert [name for name in profiles if f"`{name}`" not in FRONT.read_text()] == []
