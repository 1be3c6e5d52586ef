"""fetch_model: a source, and a LoRA adapter if any -> a run that holds `checkpoint/manifest.json`.

The weights stay where they are, in the hub's cache, the folder or the artifact store; the manifest pins them, byte for
byte, and the next step reads and verifies them there, fetching again where the machine has changed. An adapter is
checked here against the source's headers, and merged by each step that reads the checkpoint.
"""

import time
from pathlib import Path
from typing import Any

from steps.checkpoint.adapter import check_adapter_files, read_adapter_config
from steps.checkpoint.hub import fetch, resolve_commit
from steps.checkpoint.manifest import build_adapter_manifest, build_manifest, total_size
from steps.checkpoint.source import Source, is_commit, parse_source
from steps.common.disk import size_text
from steps.common.errors import StepError
from steps.project.mlproject import ROOT
from steps.registry.versions import pinned_model
from steps.runs.checkpoint_input import MANIFEST, download_artifact
from steps.runs.step import Step, run_entry_point


def check(params: dict[str, str]) -> None:
    """Refuse a source or an adapter that is none, before any work."""
    parse_source(params["source"], ROOT)
    if params["adapter"]:
        parse_source(params["adapter"], ROOT, "adapter")


def resolve(params: dict[str, str]) -> dict[str, str]:
    """The parameters with what may move pinned: a hub's branch to its commit, a model's alias to its version.

    An object store has nothing to pin: its address is marked with the time, so that it is always read again.
    """
    params = params | {"adapter": _resolve_adapter(params["adapter"])}
    source = parse_source(params["source"], ROOT)
    if source.kind == "folder":
        return params | {"revision": ""}
    if source.kind == "artifact":
        return params | {
            "source": pinned_model(source.text),
            "revision": f"read at {time.time():.0f}" if source.moves else "",
        }
    if is_commit(params["revision"]):
        return params
    return params | {"revision": resolve_commit(source.text, params["revision"] or "main")}


def _resolve_adapter(text: str) -> str:
    """The same for an adapter, whose revision is at its end: `owner/name@commit`."""
    place = parse_source(text, ROOT, "adapter") if text else None
    if not place or place.kind == "folder":
        return text
    if place.kind == "artifact":
        return pinned_model(text, "adapter")
    if is_commit(place.revision):
        return text
    return f"{place.text}@{resolve_commit(place.text, place.revision or 'main', adapter=True)}"


def fetch_model(step: Step, source: str, revision: str, adapter: str) -> None:
    """Bring the checkpoint and its adapter here, describe them, and log the manifest."""
    place = parse_source(source, ROOT)
    lora = parse_source(adapter, ROOT, "adapter") if adapter else None
    if lora:  # first, since it is small and may be refused
        with step.console.phase(f"fetching {lora.name}"):
            adapter_folder, adapter_stated = _bring(step, lora, lora.revision, "adapter")
        check_adapter_files(path.name for path in adapter_folder.iterdir())
        read_adapter_config(adapter_folder)
    with step.console.phase(f"fetching {place.name}"):
        folder, stated = _bring(step, place, revision, "source")
    with step.console.bar_class()(unit="B", unit_scale=True, desc="hashing") as bar:
        manifest = build_manifest(folder, bar.update)
    _check_stated(folder, manifest, stated)
    manifest = {"source": _origin(place, revision)} | manifest
    if lora:
        manifest["adapter"] = {"source": _origin(lora, lora.revision)} | build_adapter_manifest(adapter_folder, folder)
        _check_stated(adapter_folder, manifest["adapter"], adapter_stated)
        # The later steps' models are of both; they have no other name for it.
        manifest["source"]["name"] = f"{place.name}+{lora.name.rpartition('/')[2]}"
        step.tag(adapter=adapter)
    step.log_json(manifest, MANIFEST)
    step.tag(
        checkpoint=manifest["source"]["name"],
        checkpoint_commit=manifest["source"]["commit"] or "none: not from a hub",
    )
    step.summarise(_summary(manifest), _description(manifest))


def _bring(step: Step, place: Source, commit: str, parameter: str) -> tuple[Path, dict[str, str]]:
    if place.kind == "folder":
        return place.folder, {}
    if place.kind == "artifact":
        return download_artifact(step, place.text, parameter), {}
    return fetch(place.text, commit, step.console.bar_class(), adapter=parameter == "adapter")


def _check_stated(folder: Path, manifest: dict[str, Any], stated: dict[str, str]) -> None:
    for entry in manifest["files"]:
        if stated.get(entry["path"], entry["sha256"]) != entry["sha256"]:
            file = (folder / entry["path"]).resolve()
            raise StepError(f"{entry['path']} is not what the hub says it is (SHA-256): delete {file}, and run again")


def _origin(place: Source, revision: str) -> dict[str, str]:
    commit = revision if place.kind == "hub" else ""
    return {"kind": place.kind, "location": place.text, "name": place.name, "commit": commit}


def _summary(manifest: dict[str, Any]) -> str:
    facts, adapter = manifest["architecture"], manifest.get("adapter")
    return (
        f"{manifest['source']['name']}: {facts['parameters'] / 1e6:,.1f}M parameters, {facts['dtype']}, "
        f"{size_text(total_size(manifest))}"
    ) + (f", LoRA of rank {adapter['rank']} on {', '.join(adapter['target_modules'])}" if adapter else "")


def _description(manifest: dict[str, Any]) -> str:
    source, facts, adapter = manifest["source"], manifest["architecture"], manifest.get("adapter")
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
    if adapter:
        origin = adapter["source"]
        commit = f", commit `{origin['commit']}`" if origin["commit"] else ""
        rows["Adapter"] = f"`{origin['location']}` ({origin['kind']}{commit}), made for `{adapter['made_for']}`"
        rows["LoRA"] = (
            f"rank {adapter['rank']}, alpha {adapter['alpha']}, {adapter['parameters']:,} parameters on "
            f"{adapter['modules']} modules ({', '.join(adapter['target_modules'])}), merged by the steps that follow"
        )
        rows["Adapter's licence"] = adapter["licence"]
    return "| | |\n| --- | --- |\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())


if __name__ == "__main__":
    run_entry_point("fetch_model", fetch_model, check, resolve)
