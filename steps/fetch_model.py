"""fetch_model: a source -> a run that holds `checkpoint/manifest.json`.

The weights stay where they are, in the hub's cache, the folder or the artifact store; the manifest pins them, byte for
byte, and the next step reads and verifies them there, fetching again where the machine has changed.
"""

import time
from pathlib import Path
from typing import Any

from steps.checkpoint.hub import fetch, resolve_commit
from steps.checkpoint.manifest import build_manifest, total_size
from steps.checkpoint.source import Source, is_commit, parse_source
from steps.disk import size_text
from steps.errors import StepError
from steps.tracking.checkpoint import MANIFEST, download_artifact
from steps.tracking.project import ROOT
from steps.tracking.registry import pinned_model
from steps.tracking.step import Step, run_entry_point


def check(params: dict[str, str]) -> None:
    """Refuse a source that is none, before any work."""
    parse_source(params["source"], ROOT)
    if params["adapter"]:
        raise StepError(
            f"adapter is {params['adapter']!r}; merging LoRA adapters is not built yet: merge it with peft "
            "(merge_and_unload, save_pretrained) and give the merged folder as the source"
        )


def resolve(params: dict[str, str]) -> dict[str, str]:
    """The parameters with what may move pinned: a hub's branch to its commit, a model's alias to its version.

    An object store has nothing to pin: its address is marked with the time, so that it is always read again.
    """
    source = parse_source(params["source"], ROOT)
    if source.kind == "folder":
        return params | {"revision": ""}
    if source.kind == "artifact":
        moving = not source.text.startswith(("runs:/", "models:/", "mlflow-artifacts:/"))
        return params | {
            "source": pinned_model(source.text),
            "revision": f"read at {time.time():.0f}" if moving else "",
        }
    if is_commit(params["revision"]):
        return params
    return params | {"revision": resolve_commit(source.text, params["revision"] or "main")}


def fetch_model(step: Step, source: str, revision: str, adapter: str) -> None:
    """Bring the checkpoint here, describe it, and log the manifest."""
    del adapter  # refused by check
    place = parse_source(source, ROOT)
    with step.console.phase(f"fetching {place.name}"):
        folder, stated = _bring(step, place, revision)
    with step.console.bar_class()(unit="B", unit_scale=True, desc="hashing") as bar:
        manifest = build_manifest(folder, bar.update)
    for entry in manifest["files"]:
        if stated.get(entry["path"], entry["sha256"]) != entry["sha256"]:
            file = (folder / entry["path"]).resolve()
            raise StepError(f"{entry['path']} is not what the hub says it is (SHA-256): delete {file}, and run again")
    commit = revision if place.kind == "hub" else ""
    manifest = {"source": {"kind": place.kind, "location": source, "name": place.name, "commit": commit}} | manifest
    step.log_json(manifest, MANIFEST)
    step.tag(checkpoint=place.name, checkpoint_commit=commit or "none: not from a hub")
    step.summarise(_summary(manifest), _description(manifest))


def _bring(step: Step, place: Source, commit: str) -> tuple[Path, dict[str, str]]:
    if place.kind == "folder":
        return place.folder, {}
    if place.kind == "artifact":
        return download_artifact(step, place.text), {}
    return fetch(place.text, commit, step.console.bar_class())


def _summary(manifest: dict[str, Any]) -> str:
    facts = manifest["architecture"]
    return (
        f"{manifest['source']['name']}: {facts['parameters'] / 1e6:,.1f}M parameters, {facts['dtype']}, "
        f"{size_text(total_size(manifest))}"
    )


def _description(manifest: dict[str, Any]) -> str:
    source, facts = manifest["source"], manifest["architecture"]
    rows = {
        "Source": f"`{source['location']}` ({source['kind']})",
        "Commit": f"`{source['commit']}`" if source["commit"] else "none: not from a hub",
        "Licence": manifest["licence"],
        "Architecture": facts["architecture"],
        "Parameters": f"{facts['parameters']:,} ({facts['dtype']})",
        "Context length": f"{facts['context_length']:,} tokens, rope {facts['rope']}",
        "Attention": f"{facts['attention_heads']} heads, {facts['kv_heads']} KV heads",
        "Files": f"{len(manifest['files'])}, {size_text(total_size(manifest))}: see `{MANIFEST}`",
    }
    return "| | |\n| --- | --- |\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())


if __name__ == "__main__":
    run_entry_point("fetch_model", fetch_model, check, resolve)
