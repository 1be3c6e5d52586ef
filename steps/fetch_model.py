"""fetch_model: a source, and perhaps a LoRA adapter -> a run that holds `checkpoint/manifest.json`.

The weights stay where they are: in the hub's cache, in the folder, or in the artifact store. The manifest states size
and SHA-256 of each file. The next step reads and verifies the files there, and fetches them again on another machine.
This step checks an adapter against the source's headers. Each step that reads the checkpoint merges the adapter.
"""

import time

from steps.checkpoint.adapter import check_adapter_files, read_adapter_config
from steps.checkpoint.checks import architecture_of, check_convertible, check_usable, wrappers_of
from steps.checkpoint.describe import build_adapter_manifest, build_manifest, check_settings
from steps.checkpoint.hub import Fetched, resolve_commit
from steps.checkpoint.manifest import MANIFEST, AdapterManifest, Manifest
from steps.checkpoint.run_page import page_text, summary_line
from steps.checkpoint.source import Source, is_commit, parse_source
from steps.common.errors import StepError
from steps.project.mlproject import ROOT
from steps.registry.versions import pinned_model
from steps.runs.checkpoint_input import bring, read_source_config
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step


def check(params: dict[str, str]) -> None:
    """Raise StepError if the source or the adapter cannot be one."""
    parse_source(params["source"], ROOT)
    if params["adapter"]:
        parse_source(params["adapter"], ROOT, "adapter")


def resolve(params: dict[str, str]) -> dict[str, str]:
    """Return the parameters with each moving name pinned: a hub's branch to a commit, a model's alias to a version.

    An object store has no versions. Its `revision` becomes the present time, so that the store is always read again.
    """
    params = params | {"adapter": _resolve_adapter(params["adapter"])}
    source = parse_source(params["source"], ROOT)
    if source.kind == "folder":
        return params | {"revision": ""}
    if source.kind == "artifact":
        revision = f"read at {time.time():.0f}" if source.is_mutable else ""
        return params | {"source": pinned_model(source.location), "revision": revision}
    if is_commit(params["revision"]):
        return params
    return params | {"revision": resolve_commit(source.location, params["revision"] or "main")}


def resolve_convertible(params: dict[str, str]) -> dict[str, str]:
    """Return the parameters, pinned, if the checkpoint can be converted to ONNX. Only its config.json is fetched."""
    params = resolve(params)
    config = read_source_config(parse_source(params["source"], ROOT).origin(params["revision"]))
    check_usable(config)
    check_convertible(architecture_of(config), wrappers_of(config))
    return params


def _resolve_adapter(adapter: str) -> str:
    """Return the adapter, pinned. Its revision is a part of it: `owner/name@commit`."""
    source = parse_source(adapter, ROOT, "adapter") if adapter else None
    if source is None or source.kind == "folder":
        return adapter
    if source.kind == "artifact":
        return pinned_model(adapter, "adapter")
    if is_commit(source.revision):
        return adapter
    return f"{source.location}@{resolve_commit(source.location, source.revision or 'main', adapter=True)}"


def fetch_model(step: Step, source: str, revision: str, adapter: str) -> None:
    """Bring the checkpoint and its adapter to this machine, describe them, and log the manifest."""
    checkpoint_source = parse_source(source, ROOT)
    adapter_source = parse_source(adapter, ROOT, "adapter") if adapter else None
    # The adapter comes first: it is small, and it may be refused.
    fetched_adapter = _fetch_adapter(step, adapter_source) if adapter_source else None
    with step.console.phase(f"fetching {checkpoint_source.name}"):
        origin = checkpoint_source.origin(revision)
        fetched = bring(origin, "source", step.console)
        if origin.kind != "hub":  # a hub's were checked before its weights were downloaded
            check_settings(fetched.folder)
    with step.console.bar_class()(unit="B", unit_scale=True, desc="hashing") as bar:
        manifest = build_manifest(fetched.folder, origin, bar.update)
    _check_stated(fetched, manifest)
    if adapter_source and fetched_adapter:
        adapter_manifest = build_adapter_manifest(
            fetched_adapter.folder, adapter_source.origin(adapter_source.revision), fetched.folder
        )
        _check_stated(fetched_adapter, adapter_manifest)
        manifest = manifest.with_adapter(adapter_manifest)
        step.tag(adapter=adapter)
    step.client.log_text(step.run_id, manifest.to_json(), MANIFEST)
    step.tag(checkpoint=manifest.origin.name, checkpoint_commit=manifest.origin.commit or "none: not from a hub")
    step.summarise(summary_line(manifest), page_text(manifest))


def _fetch_adapter(step: Step, source: Source) -> Fetched:
    """Bring an adapter to this machine; refuse an adapter that is not LoRA in safetensors."""
    with step.console.phase(f"fetching {source.name}"):
        fetched = bring(source.origin(source.revision), "adapter", step.console)
    check_adapter_files(path.name for path in fetched.folder.iterdir())
    read_adapter_config(fetched.folder)
    return fetched


def _check_stated(fetched: Fetched, manifest: Manifest | AdapterManifest) -> None:
    """Raise StepError if a file does not have the SHA-256 that the hub states."""
    for file in manifest.files:
        if fetched.stated.get(file.path, file.sha256) != file.sha256:
            path = (fetched.folder / file.path).resolve()
            raise StepError(
                f"{file.path} does not have the SHA-256 that the hub states: delete {path}, and run fetch_model again"
            )


if __name__ == "__main__":
    run_entry_point("fetch_model", fetch_model, check, resolve)
