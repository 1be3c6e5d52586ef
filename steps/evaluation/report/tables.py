"""The comparison, for people: the same columns in the terminal, in Markdown and in the UI."""

from typing import Any

COLUMNS = (
    "model",
    "accuracy",
    "agreement",
    "KL",
    "TTFT ms",
    "decode tok/s",
    "memory MB",
    "size MB",
    "verdict",
)


def row(entry: dict[str, Any]) -> dict[str, str]:
    """One model of evaluation.json as the cells of the table."""
    metrics = entry["metrics"]

    def cell(name: str, form: str) -> str:
        return "-" if metrics.get(name) is None else format(metrics[name], form)

    passed = entry["alias"] or ("champion" if entry["champion"] else "passed")
    return {
        "model": entry["model"],
        "accuracy": cell("accuracy", ".1%"),
        "agreement": cell("agreement", ".1%"),
        "KL": cell("kl_mean", ".2g"),
        "TTFT ms": cell("ttft_ms", ",.1f"),
        "decode tok/s": cell("decode_tokens_per_s", ",.1f"),
        "memory MB": cell("peak_memory_mb", ",.0f"),
        "size MB": cell("size_mb", ",.1f"),
        "verdict": "failed: " + "; ".join(entry["failed_gates"]) if entry["failed_gates"] else passed,
    }


def verdict(evaluation: dict[str, Any]) -> str:
    """What evaluation.json came to, in a few words."""
    champion = evaluation["champion"]["label"]
    if champion and all(entry["failed_gates"] for entry in evaluation["models"] if entry["given"]):
        return f"champion: {champion}, as before: no given model passed every gate"
    if champion:
        return f"champion: {champion}"
    passed = any(not entry["failed_gates"] for entry in evaluation["models"])
    return f"no champion: no {'registered version' if passed else 'model'} passed every gate"


def text_table(rows: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> str:
    """Aligned columns for a terminal; the first and the last to the left, the figures to the right."""
    widths = [max(len(column), *(len(cells[column]) for cells in rows)) for column in columns]

    def line(cells: list[str]) -> str:
        aligned = [
            cell.ljust(width) if i in (0, len(columns) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(list(columns)), *(line([cells[column] for column in columns]) for cells in rows)])


def markdown_table(rows: list[dict[str, str]], columns: tuple[str, ...]) -> str:
    """The same as Markdown; MLflow's pages draw cells without any space between, so each ends in some."""
    cells = [columns, *([row_[column] for column in columns] for row_ in rows)]
    lines = [" | ".join(f"{cell}&emsp;" for cell in line) for line in cells]
    return "\n".join(f"| {line} |" for line in [lines[0], " | ".join(["---"] * len(columns)), *lines[1:]])
