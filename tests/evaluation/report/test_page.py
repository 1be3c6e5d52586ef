"""The report: is everything that was found in it, and nothing that a browser would run or fetch?"""

import copy
import math
import random
import re
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from steps.evaluation.report import page as report
from steps.evaluation.report import plots

LENGTHS = (32, 128, 512)
HOSTILE = "<script>alert(1)</script><img src=https://example.com/x onerror=alert(2)> | {{ 7 * 7 }} $x$ </pre></div>"
LONG_LABELS = (
    "transformers-bfloat16",
    "onnx-genai-int4-block_size-128-last_matmul-int8",
    "onnx-genai-int4-block_size-32-accuracy_level-4",
    "onnx-genai-fp32",
    "onnx-optimum-int8-per_channel-$x$",
)


def model(label: str, speed: float, kl: float, *, accuracy: float = 0.97, champion: bool = False) -> dict:
    """A model that was measured in every way; `speed` in decoded tokens a second, `kl` the mean in nats."""
    dice = random.Random(label)

    def timed(rep: int, length: int) -> dict:
        ttft, token = (0.002 + length / speed / 14) * dice.lognormvariate(0, 0.1), dice.lognormvariate(0, 0.06) / speed
        return {
            "prompt_tokens": length + 2,
            "rep": rep,
            "ttft_s": ttft,
            "known_s": 0.6 * token,
            "whole_s": 31.6 * token,
            "tokens": 32,
        }

    tokens = [math.exp(dice.gauss(math.log(kl) - 1, 1.5)) for _ in range(1000)]
    edges = [10 ** (n / 4 - 8) for n in range(41)]
    counts = [sum(low <= value < high for value in tokens) for low, high in zip(edges, edges[1:], strict=False)]
    samples = [timed(rep, length) for rep in range(10) for length in LENGTHS]
    first = sorted(1e3 * value["ttft_s"] for value in samples[1::3])
    later = sorted(1e3 * (value["whole_s"] - value["known_s"]) / 31 for value in samples[1::3])
    ttft, tpot = statistics.median(first), statistics.median(later)
    rates = {1: speed / 40, 4: speed / 25, 8: speed / 22}
    return {
        "model": label,
        "uri": f"models:/m-{abs(int(speed)):032x}",
        "model_id": f"m-{abs(int(speed)):032x}",
        "version": 4,
        "given": True,
        "champion": champion,
        "alias": "champion" if champion else "challenger",
        "reason": "the fastest of those that pass every gate" if champion else "slower than the champion",
        "eos_off": True,
        "metrics": {
            "accuracy": accuracy,
            "agreement": 0.96,
            "judged": None,
            "perplexity": 9.12 * math.exp(kl / 2),
            "ln_perplexity_ratio": kl / 2,
            "kl_mean": kl,
            "kl_median": kl / 3,
            "kl_99": 9 * kl,
            "kl_max": 60 * kl,
            "same_top": 1 - min(0.3, kl),
            "rms_dp": min(0.2, 2 * kl),
            "load_s": 0.41,
            "first_call_ms": 31.0,
            "ttft_ms": ttft,
            "ttft_p95_ms": first[-1],
            "tpot_ms": tpot,
            "tpot_p95_ms": later[-1],
            "prefill_tokens_per_s": 130e3 / ttft,
            "decode_tokens_per_s": speed,
            "peak_memory_mb": 290 + 1e5 / speed,
            "size_mb": 1.5 + 600 / speed,
            "bandwidth_share": 0.57,
        }
        | {f"requests_per_s_{clients}": rate for clients, rate in rates.items()},
        "errors": {
            "ln_perplexity_ratio": kl / 11,
            "kl_mean": kl / 9,
            "same_top": 0.004,
            "perplexity": 0.31,
            "rms_dp": 0.002,
        },
        "intervals": {
            "accuracy": [accuracy - 0.04, min(1, accuracy + 0.02)],
            "agreement": [0.91, 0.99],
            "ttft_ms": [0.97 * ttft, 1.04 * ttft],
            "decode_tokens_per_s": [0.96 * speed, 1.03 * speed],
            "prefill_tokens_per_s": [125e3 / ttft, 134e3 / ttft],
        },
        "kl_histogram": {"edges": edges, "counts": counts},
        "gates": [{"text": f"accuracy {accuracy:g} >= 0.9", "passed": True}],
        "failed_gates": [],
        "samples": {
            "speed": samples,
            "throughput": [
                {"concurrency": clients, "requests": 8, "seconds": 8 / rate, "output_tokens": 256, "failed": 0}
                for clients, rate in rates.items()
            ],
            "loads_s": [0.4, 0.41, 0.43],
            "first_call_s": 0.031,
        },
    }


def pair(label: str, against: str, **other: float) -> dict:
    return {
        "model": label,
        "against": against,
        "accuracy_difference": -0.01,
        "accuracy_interval": [-0.03, 0.01],
        "only_model_right": 1,
        "only_against_right": 2,
        "mcnemar_p": 0.62,
        "p_worse": 0.31,
        "speed_ratio": 12.34,
        "speed_interval": [11.9, 12.6],
        "speed_p": 1.0,
    } | other


def evaluation(*models: dict, **other: object) -> dict:
    """What evaluation.json holds; the first champion among the models is the new one."""
    champion = next((entry["model"] for entry in models if entry["champion"]), None)
    labels = [entry["model"] for entry in models]
    return {
        "run": "20c8271b908d42bda4aa81d14fa7787f",
        "checkpoint": {"name": "tiny-phi3", "commit": "0a67737cc96d2554230f90338b163bc6380a2a85"},
        "reference": {
            "dtype": "bfloat16",
            "metrics": {"accuracy": 0.98, "perplexity": 9.12},
            "intervals": {"accuracy": [0.95, 1.0], "perplexity": [8.6, 9.7]},
        },
        "evalset": {"path": "sets/qa.jsonl", "items": 229, "asked": 100, "sha256": "e" * 64, "kinds": {"exact": 100}},
        "text": {"path": "texts/general.txt", "sha256": "f" * 64, "windows": 8, "window": 512, "scored_tokens": 2048},
        "gates": {"path": "gates/tiny.yaml", "limits": []},
        "prefer": "speed",
        "effort": {
            "name": "quick",
            "questions": 100,
            "tokens": 1024,
            "repetitions": 10,
            "seconds": 60.0,
            "prompt_lengths": list(LENGTHS),
            "new_tokens": 32,
            "concurrency": [1, 4, 8],
        },
        "interleaved": True,
        "environment": {
            "cpu": "AMD EPYC 7B13",
            "usable_cpus": 2,
            "platform": "Linux-6.1-x86_64-with-glibc2.36",
            "python": "3.11.7",
            "packages": {"mlflow": "3.17.2", "onnxruntime-genai": "0.15.2", "torch": "2.13.0"},
            "memory_bandwidth_gb_s": 29.1,
        },
        "answers": {"max_tokens": 128},
        "champion": {
            "name": "tiny-phi3",
            "before": "2",
            "after": "4",
            "label": champion,
            "decision": "It passes every gate and decodes faster than version 2, which was the champion before.",
        },
        "models": list(models),
        "comparisons": [pair(label, labels[0]) for label in labels[1:]],
        "worst": [
            {
                "question": "What is the capital of Afghanistan?",
                "expected": "Kabul",
                "kind": "exact",
                "reference": "Kabul",
                "answers": {
                    label: {"text": "Kabul" if n % 2 else "Paris", "right": bool(n % 2), "why": "expected 'Kabul'"}
                    for n, label in enumerate(labels)
                },
            }
        ],
        "reproduce": ["mlflow run . -e evaluate -P models=models:/tiny-phi3/4,models:/tiny-phi3/2 -P effort=quick"],
        **other,
    }


def two() -> dict:
    """The usual case: both wrappers of one checkpoint."""
    slow, fast = model("transformers-bfloat16", 331, 2e-6), model("onnx-genai-int4", 4056, 0.012, champion=True)
    return evaluation(slow, fast)


def five() -> dict:
    """Long labels; two models fail gates, and one of them twice."""
    models = [
        model(label, 300 * 1.9**n, 0.004 * (n + 0.02), accuracy=0.98 - 0.02 * n, champion=n == 2)
        for n, label in enumerate(LONG_LABELS)
    ]
    models[3] |= {"alias": "", "failed_gates": ["size_mb 7640 > 4000"]}
    models[4] |= {"alias": "", "failed_gates": ["accuracy 0.9 < 0.95", "kl_mean could not be measured"]}
    for entry in models:
        entry["gates"] = entry["gates"] + [{"text": text, "passed": False} for text in entry["failed_gates"]]
    return evaluation(*models)


def alien() -> dict:
    """A single model of another project: it answers and nothing more could be found out."""
    entry = model("their-model", 100, 0.01)
    entry |= {"version": None, "model_id": None, "alias": "", "eos_off": False, "kl_histogram": None, "errors": {}}
    entry |= {"metrics": dict.fromkeys(entry["metrics"]) | {"accuracy": 0.5}, "intervals": {"accuracy": None}}
    entry |= {
        "samples": {"speed": [], "throughput": [], "loads_s": [], "first_call_s": None},
        "gates": [],
        "reason": None,
    }
    champion = {"name": None, "before": None, "after": None, "label": None, "decision": None}
    return evaluation(
        entry,
        champion=champion,
        comparisons=[],
        worst=[],
        reproduce=[],
        reference={"dtype": "float32", "metrics": {"accuracy": None, "perplexity": float("nan")}, "intervals": None},
        environment=two()["environment"] | {"memory_bandwidth_gb_s": None, "cpu": None, "packages": None},
    )


def hostile() -> dict:
    """Every text that comes from outside is markup, or very long."""
    entry = model(HOSTILE, 50, 0.3, champion=True) | {"failed_gates": [f"{HOSTILE} failed"], "reason": HOSTILE}
    answer = {"text": HOSTILE, "right": False, "why": HOSTILE}
    worst = {
        "question": HOSTILE,
        "expected": HOSTILE,
        "kind": HOSTILE,
        "reference": HOSTILE,
        "answers": {HOSTILE: answer},
    }
    endless = worst | {"question": "endless " * 5_000, "answers": {HOSTILE: answer | {"text": "x" * 100_000}}}
    return evaluation(
        entry,
        model("other", 90, 0.1),
        worst=[worst, endless],
        checkpoint={"name": HOSTILE, "commit": None},
        reproduce=[HOSTILE],
    )


SAMPLES = {"two": two, "five": five, "alien": alien, "hostile": hostile}


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str):
        super().__init__()
        self.source, self.tags, self.attributes, self.words, self.ids = text, set(), [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        if self.lasttag != "style":
            self.words.append(data)


def drawn(content: dict) -> dict[str, str]:
    return {name: svg for name, draw in plots.PLOTS.items() if (svg := draw(content))}


def page(content: dict) -> Page:
    """Without charts, which take a second."""
    return Page(report.html(content, {}))


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request) -> tuple[dict, dict[str, str], Page]:
    """Each of the evaluations, its charts and its page."""
    content = SAMPLES[request.param]()
    charts = drawn(content)
    return content, charts, Page(report.html(content, charts))


def test_the_page_runs_nothing_and_fetches_nothing(sample):
    found = sample[2]
    assert not found.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image"}
    references = [value for name, value in found.attributes if name in ("href", "src", "xlink:href", "srcset", "data")]
    assert references and all(value.startswith("#") for value in references)
    assert not any(name.startswith("on") for name, _ in found.attributes)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*(.)", found.source))
    assert "@import" not in found.source


def test_ids_are_unique_and_every_reference_has_its_target(sample):
    found = sample[2]
    assert len(found.ids) == len(set(found.ids))
    wanted = [value[1:] for name, value in found.attributes if name in ("href", "xlink:href")]
    wanted += re.findall(r"url\(#([^)]+)\)", found.source)
    wanted += [value for name, value in found.attributes if name == "aria-labelledby"]
    assert set(wanted) <= set(found.ids)


def test_every_model_and_every_failed_gate_is_on_the_page(sample):
    content, _, found = sample
    for entry in content["models"]:
        assert entry["model"] in found.text
        for gate in entry["failed_gates"]:
            assert gate in found.text


def test_nothing_is_shown_as_none_or_nan(sample):
    content, _, found = sample
    assert not re.search(r"\b(None|nan|null|inf|True|False|Undefined)\b", found.text)
    assert not re.search(r"\b(None|nan|null|inf)\b", report.markdown(content))


def test_the_same_evaluation_gives_the_same_page(sample):
    content, charts, found = sample
    again = copy.deepcopy(content)
    assert drawn(again) == charts
    assert report.html(again, charts) == found.source


def test_markup_in_answers_is_text():
    found = page(hostile())
    assert found.text.count("<script>alert(1)</script>") > 8
    assert "{{ 7 * 7 }}" in found.text


def test_a_very_long_answer_is_cut_with_its_length():
    found = page(hostile())
    assert "(100,000 characters in all)" in found.text
    assert "(40,000 characters in all)" in found.text
    assert len(found.source) < 60_000


def test_a_page_without_charts_says_why():
    found = page(alien())
    assert "Not drawn: no model was compared with the reference token by token" in found.text
    assert found.text.count("Not drawn:") == len(plots.PLOTS)


def test_what_is_missing_is_in_words():
    text = page(alien()).text
    assert "token by token: no logits, not a model of a kind that evaluate can look into." in text
    other = alien()
    other["models"][0]["missing"] = "its vocabulary has 7 tokens"
    assert (
        "their-model is not compared with the reference token by token: its vocabulary has 7 tokens."
        in page(other).text
    )
    assert "their-model may end its answers early" in text
    assert "No model is the champion." in text
    assert "There were no gates to pass." in text
    assert "No pairs: only one model was evaluated." in text
    assert "Memory bandwidth not measured" in text
    assert "not measured" in report.markdown(alien())


def test_figures_come_with_their_intervals_and_errors():
    content = two()
    content["models"][1]["metrics"] |= {"ln_perplexity_ratio": math.log(1.25), "kl_mean": 0.0123}
    content["models"][1]["errors"] |= {"ln_perplexity_ratio": 0.1, "kl_mean": 0.00045}
    text = page(content).text
    assert "97.0% 93.0% to 99.0%" in text
    assert "0.0123 ± 0.000450" in text
    assert "1.2500 ± 0.125" in text
    assert "4,056 3,894 to 4,178" in text


def test_a_small_figure_is_not_rounded_to_nothing():
    content = two()
    content["models"][0]["metrics"] |= {"rms_dp": 4.7e-6, "kl_mean": 6.08e-7}
    text = page(content).text
    assert "0.000470%" in text
    assert "6.08e-7" in text


def test_the_best_of_a_row_is_bold_unless_all_are_the_same():
    content = two()
    for entry in content["models"]:
        entry["metrics"]["size_mb"] = 2.0
    source = report.html(content, {})
    assert re.search(r'<td class="best">4,056<', source)
    assert not re.search(r'class="best">2\.00<', source)


@pytest.mark.parametrize(
    ("champion", "headline"),
    [
        ({"label": "onnx-genai-int4"}, "onnx-genai-int4 is the champion: version 4 of tiny-phi3."),
        ({"label": "onnx-genai-int4", "name": None, "after": None}, "onnx-genai-int4 is the champion."),
        ({"label": None}, "Version 4 of tiny-phi3 stays the champion; it was not evaluated here."),
        ({"label": None, "after": None}, "No model is the champion."),
    ],
)
def test_the_verdict_comes_first(champion, headline):
    content = two()
    content["models"][1]["champion"] = bool(champion["label"])
    content["champion"] |= champion
    assert f"Evaluation of tiny-phi3 {headline} It passes every gate" in page(content).text
    assert report.markdown(content).startswith(f"**{headline}** It passes every gate")


def test_failed_gates_are_said_at_the_top():
    failed = "onnx-optimum-int8-per_channel-$x$ failed 2 gates: accuracy 0.9 < 0.95; kl_mean could not be measured."
    text = page(five()).text
    assert text.index(failed) < text.index("The models compared")
    assert "Every gate passed." not in text
    assert "Every gate passed." in page(two()).text


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({}, "no worse, as far as 100 questions can tell: p = 0.62"),
        ({"mcnemar_p": 0.004}, "worse: p = 0.004"),
        ({"mcnemar_p": 0.004, "accuracy_difference": 0.1}, "better: p = 0.004"),
        ({"mcnemar_p": None}, "Answers not compared"),
        ({}, "accuracy −1.0 points (−3.0 to +1.0); 1 right only here, 2 only there"),
        ({}, "Speed faster: 12.3 times as fast in decode 95% interval 11.9 to 12.6; one-sided test of slower: p = 1"),
        (
            {"speed_ratio": 1.01, "speed_interval": [0.9, 1.1]},
            "Speed no difference shown: 1.01 times as fast in decode",
        ),
        (
            {"speed_ratio": 0.05, "speed_interval": [0.04, 0.1], "speed_p": 0.001},
            "slower: transformers-bfloat16 is 20.0 times as fast in decode 95% interval 10.0 to 25.0; one-sided",
        ),
        ({"only_model_right": 0, "only_against_right": 0}, "right and wrong on the same questions"),
        ({"speed_ratio": None, "speed_interval": None, "speed_p": None}, "Speed not compared"),
    ],
)
def test_a_comparison_is_in_words(difference, words):
    assert words in page(two() | {"comparisons": [pair("onnx-genai-int4", "transformers-bfloat16", **difference)]}).text


def test_markdown_is_short_and_has_the_table_and_the_failures():
    lines = report.markdown(five()).splitlines()
    assert len(lines) <= 25
    assert sum(line.startswith("|") for line in lines) == 2 + 5
    assert any("size_mb 7640 &gt; 4000" in line for line in lines)
    assert "`report.html`" in lines[-1]


def test_markup_in_markdown_is_text():
    text = report.markdown(hostile())
    assert "<script>" not in text and "<img" not in text
    row = next(line for line in text.splitlines() if line.startswith("| &lt;script"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 9  # eight columns


def test_every_chart_names_the_models_that_it_draws_and_follows_the_page(sample):
    content, charts, _ = sample
    for name, svg in charts.items():
        root = ElementTree.fromstring(svg)
        texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {entry["model"] for entry in content["models"]} <= texts, name
        assert "currentColor" in svg and "var(--series-0, #0072b2)" in svg and "var(--grid" in svg
        assert not re.search(r"#0[147]0[258]0[369]", svg)


def test_a_full_evaluation_has_every_chart_and_one_without_samples_what_it_can():
    assert set(drawn(two())) == set(plots.PLOTS)
    assert drawn(alien()) == {}
    blind = two()
    for entry in blind["models"]:
        entry["kl_histogram"] = None
    assert plots.kl_histogram(blind) is None


def test_quality_is_accuracy_unless_that_is_the_same_for_all():
    assert plots.quality_metric(five()) == "accuracy"
    assert plots.quality_metric(two()) == "kl_mean"
    assert plots.quality_metric(alien()) is None
    assert "PyTorch" in plots.quality_against_speed(five())
    assert "KL divergence" in plots.quality_against_speed(two())


def test_latency_is_that_of_the_middle_prompt_length():
    content = two()
    before = plots.latency(content)
    for length, changes in ((514, False), (34, False), (130, True)):
        other = copy.deepcopy(content)
        for value in other["models"][0]["samples"]["speed"]:
            if value["prompt_tokens"] == length:
                value["ttft_s"] *= 1.5
        assert (plots.latency(other) != before) == changes


def test_one_sample_is_enough_for_a_chart():
    content = evaluation(model("only", 80, 0.01))
    del content["models"][0]["samples"]["speed"][1:]
    assert set(drawn(content)) == set(plots.PLOTS)


def test_importing_the_report_does_not_load_matplotlib():
    code = "import sys, steps.evaluation.report.page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
