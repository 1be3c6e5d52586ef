"""The one table of metrics: what gates, tables, plots, the report, registry tags and MLflow know of each metric.

A new metric needs two things: a row here, and its value in summary.py.
"""

from dataclasses import dataclass
from typing import Literal

_CLIENTS = (1, 4, 8)  # clients that ask at the same time; the efforts in inputs/effort.py use these numbers


@dataclass(frozen=True)
class Metric:
    """One metric of a model."""

    name: str  # in evaluation.json, in gates and in MLflow
    title: str  # in the report
    variant: str = ""  # added to the title where several metrics share it
    unit: str = ""
    best: Literal["max", "min"] = "min"
    style: Literal["share", "figure", "decimals", "exponential"] = "figure"  # how a value is shown; see formatting.py
    group: Literal["Quality", "Speed", "Cost", "Throughput"] = "Quality"  # of rows in the report's tables
    further: bool = False  # in the report's second table, "Further figures"
    column: str = ""  # heading in the short tables; empty: not in them
    of_reference: bool = False  # the reference has it too, so a gate can compare with it
    of_text: bool = False  # measured token by token against the reference
    optional: bool = False  # its row is left out where no model has it
    tagged: bool = False  # becomes a tag of a registered version
    definition: str = ""  # of the title, with its source; stands at the title's first metric

    @property
    def label(self) -> str:
        """Return the title with variant and unit, for a row of a table or the axis of a plot."""
        return ", ".join(part for part in (self.title, self.variant, self.unit) if part)


_QUALITY = (
    Metric(
        "accuracy",
        "Accuracy",
        best="max",
        style="share",
        column="accuracy",
        of_reference=True,
        tagged=True,
        definition="share of the questions answered right; the kind of each question says what is right",
    ),
    Metric(
        "judged",
        "Accuracy by a judge",
        best="max",
        style="share",
        optional=True,
        definition="share of the questions whose answer the judge, a language model, calls correct",
    ),
    Metric(
        "agreement",
        "Agreement",
        best="max",
        style="share",
        column="agreement",
        tagged=True,
        definition="share of the answers whose text equals the reference's answer",
    ),
    Metric(
        "ln_perplexity_ratio",
        "Perplexity ratio",
        style="exponential",
        of_text=True,
        tagged=True,
        definition="perplexity of the model over perplexity of the reference, on the same tokens. Gates and MLflow "
        "hold its logarithm, the mean of ln(reference's likelihood / model's likelihood); ln(PPL(Q)/PPL(base)) in "
        "llama.cpp's tools/perplexity README",
    ),
    Metric(
        "kl_mean",
        "KL divergence",
        "mean",
        "nats",
        column="KL",
        of_text=True,
        tagged=True,
        definition="Σ p ln(p/q) over the vocabulary at each token of the text; p is the reference's distribution, q is "
        "the model's. 0 means equal distributions (Kullback and Leibler 1951; llama.cpp's tools/perplexity README)",
    ),
    Metric(
        "same_top",
        "Same top token",
        best="max",
        style="share",
        of_text=True,
        definition='share of the tokens where model and reference find the same next token most likely; "Same top p" '
        "in llama.cpp's tools/perplexity README",
    ),
    Metric(
        "perplexity",
        "Perplexity",
        style="decimals",
        further=True,
        of_reference=True,
        of_text=True,
        definition="exp of the mean negative log likelihood of the text's tokens, each given the tokens before it; as "
        'in Hugging Face\'s "Perplexity of fixed-length models"',
    ),
    Metric("kl_median", "KL divergence", "median", "nats", further=True, of_text=True),
    Metric("kl_99", "KL divergence", "99th percentile", "nats", further=True, of_text=True),
    Metric("kl_max", "KL divergence", "maximum", "nats", further=True, of_text=True),
    Metric(
        "rms_dp",
        "RMS Δp",
        style="share",
        further=True,
        of_text=True,
        definition="root mean square of the change in the probability of the correct token; as in llama.cpp's "
        "tools/perplexity README",
    ),
)
_SPEED = (
    Metric(
        "ttft_ms",
        "TTFT",
        "p50",
        "ms",
        group="Speed",
        column="TTFT ms",
        tagged=True,
        definition="time to first token: a request for 1 token with a prompt that the model has not seen; as in MLPerf "
        "Inference",
    ),
    Metric("ttft_p95_ms", "TTFT", "p95", "ms", group="Speed"),
    Metric(
        "tpot_ms",
        "TPOT",
        "p50",
        "ms",
        group="Speed",
        definition="time per output token: the time of an answer minus the time of the same request for 1 token, over "
        "the tokens after the first; as in MLPerf Inference",
    ),
    Metric("tpot_p95_ms", "TPOT", "p95", "ms", group="Speed"),
    Metric(
        "prefill_tokens_per_s",
        "Prefill",
        unit="tokens/s",
        best="max",
        group="Speed",
        definition="tokens of the prompt over TTFT; the median",
    ),
    Metric(
        "decode_tokens_per_s",
        "Decode",
        unit="tokens/s",
        best="max",
        group="Speed",
        column="decode tok/s",
        tagged=True,
        definition="1 over the median TPOT",
    ),
)
_COST = (
    Metric("peak_memory_mb", "Peak memory", unit="MB", group="Cost", column="memory MB"),
    Metric("size_mb", "Size", unit="MB", group="Cost", column="size MB", tagged=True),
    Metric("load_s", "Load time", unit="s", group="Cost"),
    Metric("first_call_ms", "First call", unit="ms", group="Cost", further=True),
    Metric(
        "bandwidth_share",
        "Share of the memory bandwidth",
        best="max",
        style="share",
        group="Cost",
        further=True,
        definition="bytes of weights that decode reads per second, over the measured memory bandwidth; the memory roof "
        "of the roofline model (Williams et al. 2009)",
    ),
)
_THROUGHPUT = tuple(
    Metric(
        f"requests_per_s_{clients}",
        "Throughput",
        f"{clients} client{'' if clients == 1 else 's'}",
        "requests/s",
        best="max",
        group="Throughput",
        further=True,
        definition="" if number else "requests answered per second, by the number of clients that ask at the same time",
    )
    for number, clients in enumerate(_CLIENTS)
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in (*_QUALITY, *_SPEED, *_COST, *_THROUGHPUT)}
REQUESTS_PER_S: dict[int, Metric] = dict(zip(_CLIENTS, _THROUGHPUT, strict=True))  # clients -> throughput
