"""Describe a checkpoint for people: the line that fetch_model prints, its run's page, and a model's description."""

from steps.checkpoint.manifest import MANIFEST, AdapterManifest, Manifest
from steps.common.disk import size_text
from steps.common.hashing import total_size


def summary_line(manifest: Manifest) -> str:
    """Return one line: name, parameters, dtype, size, the adapter, and what the checkpoint cannot have."""
    facts, adapter = manifest.architecture, manifest.adapter
    line = (
        f"{manifest.origin.name}: {facts.parameters / 1e6:,.1f}M parameters, {facts.dtype}, "
        f"{size_text(total_size(manifest.files))}"
    )
    if adapter:
        line += f", LoRA of rank {adapter.rank} on {', '.join(adapter.target_modules)}"
    if len(manifest.wrappers) == 1:
        line += f"; its only wrapper is {manifest.wrappers[0]}"
    if not manifest.canonical.has_chat_template:
        line += "; no chat template, so llm/v1/completions only"
    if ignored := manifest.canonical.ignored_files:
        line += f"; ignored {', '.join(ignored[:2])}{f' and {len(ignored) - 2} more' if len(ignored) > 2 else ''}"
    return line


def facts_line(manifest: Manifest) -> str:
    """Return parameters, context length and licence, for the description of a model."""
    facts = manifest.architecture
    return (
        f"{facts.parameters / 1e6:,.1f}M parameters, context {_number(facts.context_length)}, "
        f"licence {manifest.licence}"
    )


def page_text(manifest: Manifest) -> str:
    """Return a Markdown table of the checkpoint's facts."""
    origin, facts = manifest.origin, manifest.architecture
    rows = {
        "Source": f"`{origin.location}` ({origin.kind})",
        "Commit": f"`{origin.commit}`" if origin.commit else "none: not from a hub",
        "Licence": manifest.licence,
        "Architecture": facts.architecture,
        "Parameters": f"{facts.parameters:,} ({facts.dtype})",
        "Context length": f"{_number(facts.context_length)} tokens, rope {facts.rope}",
        "Attention": f"{_number(facts.attention_heads)} heads, {_number(facts.kv_heads)} KV heads",
        "Wrappers": " and ".join(manifest.wrappers),
        "Chat template": "yes" if manifest.canonical.has_chat_template else "none: llm/v1/completions only",
        "End tokens": f"{_list(manifest.canonical.end_tokens)}, from {_list(manifest.canonical.end_token_sources)}",
        "Files": f"{len(manifest.files)}, {size_text(total_size(manifest.files))}: see `{MANIFEST}`",
    }
    if manifest.canonical.changes:
        rows["Translated"] = "; ".join(manifest.canonical.changes)
    if manifest.canonical.ignored_files:
        rows["Ignored"] = _list(manifest.canonical.ignored_files)
    if manifest.adapter:
        rows |= _adapter_rows(manifest.adapter)
    return "| | |\n| --- | --- |\n" + "\n".join(f"| {title} | {text} |" for title, text in rows.items())


def _adapter_rows(adapter: AdapterManifest) -> dict[str, str]:
    origin = adapter.origin
    commit = f", commit `{origin.commit}`" if origin.commit else ""
    return {
        "Adapter": f"`{origin.location}` ({origin.kind}{commit}), trained on `{adapter.made_for}`",
        "LoRA": (
            f"rank {adapter.rank}, alpha {adapter.alpha:g}, {adapter.parameters:,} parameters on {adapter.modules} "
            f"modules ({', '.join(adapter.target_modules)}); the steps that follow merge it"
        ),
        "Adapter's licence": adapter.licence,
    }


def _list(values: tuple[object, ...]) -> str:
    return ", ".join(map(str, values))


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
