"""convert_onnx: a fetch_model run -> a run that holds `onnx/`, the converted model, and `conversion.json`."""

import tempfile
from pathlib import Path

from steps.checkpoint.hub import stay_offline
from steps.checkpoint.manifest import describe_files
from steps.common.disk import need_space, size_text
from steps.common.errors import StepError
from steps.conversion.convert import convert
from steps.conversion.logits_check import compare_first_tokens
from steps.conversion.options import check_choice, estimated_size
from steps.conversion.tokenizer_check import compare_tokenizers
from steps.runs.artifacts import check_run_id, local_store
from steps.runs.checkpoint_input import verified_checkpoint
from steps.runs.step import Step, run_entry_point


def check(params: dict[str, str]) -> None:
    """Refuse what cannot be converted so, before any work."""
    check_run_id("checkpoint_run", params["checkpoint_run"])
    check_choice(params["exporter"], params["precision"], params["device"], params["options"])


def convert_onnx(step: Step, checkpoint_run: str, exporter: str, precision: str, options: str, device: str) -> None:
    """Convert aside, compare with the checkpoint, then log."""
    folder, manifest = verified_checkpoint(step, "checkpoint_run")
    stay_offline()  # everything is here
    _check_device(device)
    size = estimated_size(precision, options, manifest["architecture"])
    needs = [(Path(tempfile.gettempdir()), size), *local_store(step.run.info.artifact_uri, size)]
    need_space(f"converting {manifest['source']['name']} to {precision}", needs)

    out = step.scratch / "onnx"
    what = f"converting to {precision} with {exporter}"
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    with (
        step.console.phase(what)
        if exporter == "optimum" or "stock=true" in options
        else step.console.bar_class()(total=weights, unit="B", unit_scale=True, desc=what)
    ) as bar:
        progress = bar.update if bar else lambda count: None
        conversion = convert(folder, out, exporter, precision, options, device, progress)
    with step.console.phase("comparing its tokenizer and first tokens with the checkpoint's"):
        conversion["tokenizer"] = compare_tokenizers(folder, out)
        conversion["check"] = compare_first_tokens(folder, out, precision)
    conversion["files"] = describe_files(out, sorted(file.name for file in out.iterdir() if file.is_file()))
    conversion["size_bytes"] = sum(entry["size"] for entry in conversion["files"])
    conversion["checkpoint"] = {"run": checkpoint_run} | manifest["source"]
    with step.console.phase("logging"):
        step.client.log_artifacts(step.run_id, str(out), "onnx")
    step.log_json(conversion, "conversion.json")
    step.tag(exporter=exporter, precision=precision)
    check_, limits = conversion["check"], conversion["limits"]
    line = (
        f"{precision} by {exporter}, {size_text(conversion['size_bytes'])}, "
        f"{check_['equal']} of {check_['tokens']} first tokens as in PyTorch"
        f"{'; has known limits, see its page' if limits else ''}"
    )
    notes = "".join(f"\n\nKnown limit of onnxruntime-genai, not of wrap_custom's model: {limit}" for limit in limits)
    step.summarise(line, f"**{manifest['source']['name']}** as ONNX: {line}. Details: `conversion.json`.{notes}")


def _check_device(device: str) -> None:
    if device == "cuda":
        import onnxruntime_genai as og

        if not og.is_cuda_available():
            raise StepError(
                "device is 'cuda', but this environment's onnxruntime-genai sees no CUDA: use device=cpu, or a machine "
                "with a GPU and the package onnxruntime-genai-cuda in place of onnxruntime-genai in conda.yaml"
            )


if __name__ == "__main__":
    run_entry_point("convert_onnx", convert_onnx, check)
