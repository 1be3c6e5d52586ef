"""convert_onnx: a fetch_model run -> a run that holds `onnx/`, the converted model, and `conversion.json`."""

import tempfile
from pathlib import Path

from steps.checkpoint.hub import stay_offline
from steps.common.disk import need_space, size_text
from steps.common.errors import StepError
from steps.common.hashing import describe_files, total_size
from steps.conversion.convert import ConversionFacts, convert
from steps.conversion.logits_check import compare_first_tokens
from steps.conversion.options import ConversionOptions, estimated_size, parse_choice
from steps.conversion.record import CONVERSION, Conversion, ConvertedCheckpoint
from steps.conversion.tokenizer_check import compare_tokenizers
from steps.runs.artifacts import check_run_id, local_store
from steps.runs.checkpoint_input import verified_checkpoint
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step


def check(params: dict[str, str]) -> None:
    """Raise StepError for parameters that cannot be right, before any work."""
    check_run_id("checkpoint_run", params["checkpoint_run"])
    parse_choice(params["exporter"], params["precision"], params["options"], params["device"])


def convert_onnx(step: Step, checkpoint_run: str, exporter: str, precision: str, options: str, device: str) -> None:
    """Convert into the scratch folder, compare the converted model with the checkpoint, then log it."""
    choice = parse_choice(exporter, precision, options, device)
    checkpoint = verified_checkpoint(step, "checkpoint_run", checkpoint_run)
    folder, manifest = checkpoint.folder, checkpoint.manifest
    stay_offline()  # every file is on this machine
    _check_device(device)
    size = estimated_size(choice, manifest.architecture)
    needs = [(Path(tempfile.gettempdir()), size), *local_store(step.run.info.artifact_uri, size)]
    need_space(f"converting {manifest.origin.name} to {precision}", needs)

    out = step.scratch / "onnx"
    facts = _convert(step, folder, out, choice)
    with step.console.phase("comparing its tokenizer and first tokens with the checkpoint's"):
        tokenizer = compare_tokenizers(folder, out)
        logits = compare_first_tokens(folder, out, precision)
    files = describe_files(out, sorted(file.name for file in out.iterdir() if file.is_file()))
    conversion = Conversion(
        checkpoint=ConvertedCheckpoint(run=checkpoint_run, **manifest.origin.model_dump()),
        **vars(choice),
        **vars(facts),
        tokenizer=tokenizer,
        check=logits,
        files=files,
        size_bytes=total_size(files),
    )
    with step.console.phase("logging"):
        step.client.log_artifacts(step.run_id, str(out), "onnx")
    step.client.log_text(step.run_id, conversion.to_json(), CONVERSION)
    step.tag(exporter=exporter, precision=precision)
    _summarise(step, conversion)


def _check_device(device: str) -> None:
    """Raise StepError if the device is a GPU that this environment cannot use."""
    if device == "cuda":
        import onnxruntime_genai as og

        if not og.is_cuda_available():
            raise StepError(
                "device is 'cuda', but this environment's onnxruntime-genai sees no CUDA: use device=cpu, or a machine "
                "with a GPU and the package onnxruntime-genai-cuda in place of onnxruntime-genai in conda.yaml"
            )


def _convert(step: Step, folder: Path, out: Path, choice: ConversionOptions) -> ConversionFacts:
    """Convert, and show a bar if the conversion tells its progress, else a clock."""
    title = f"converting to {choice.precision} with {choice.exporter}"
    if not choice.streamed:
        with step.console.phase(title):
            return convert(folder, out, choice)
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    with step.console.bar_class()(total=weights, unit="B", unit_scale=True, desc=title) as bar:
        return convert(folder, out, choice, bar.update)


def _summarise(step: Step, conversion: Conversion) -> None:
    """Print the step's line, and describe the run on its page."""
    check, limits = conversion.check, conversion.limits
    line = (
        f"{conversion.precision} by {conversion.exporter}, {size_text(conversion.size_bytes)}, "
        f"{check.equal} of {check.tokens} first tokens as in PyTorch"
        f"{'; has known limits, see its page' if limits else ''}"
    )
    notes = "".join(f"\n\nKnown limit of onnxruntime-genai, not of wrap_custom's model: {limit}" for limit in limits)
    if differences := conversion.tokenizer.genai_differences:
        notes += (
            "\n\nNote for those who run the folder in onnxruntime-genai: its own tokenizer, which wrap_custom's model "
            f"does not use, reads these texts otherwise than transformers: {'; '.join(differences)}."
        )
    step.summarise(line, f"**{conversion.checkpoint.name}** as ONNX: {line}. Details: `{CONVERSION}`.{notes}")


if __name__ == "__main__":
    run_entry_point("convert_onnx", convert_onnx, check)
