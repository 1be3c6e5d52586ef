"""Chat templates: equal to transformers', limited, and what is found out about them."""

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from steps.chat.runtime import chat_template
from steps.chat.runtime.chat_template import ChatTemplate, TemplateError, check_template, turn_end_token
from steps.chat.runtime.tokenizer import ChatTokenizer
from tests.checkout import TINY

pytestmark = pytest.mark.unit

USER = [{"role": "user", "content": "Hi <é> & 'you'"}]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "<d>", "parameters": {"type": "object"}}}]
FEATURES = [
    "{% for m in messages %}\n  {% if loop.first %}\n{{ bos_token }}\n  {% endif %}\n{{ m.content }}\n{% endfor %}",
    "{{ tools | tojson }}{{ tools | tojson(indent=2) }}{{ messages[0].content | tojson(ensure_ascii=True) }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}",
    "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{{ strftime_now('%Y') | int > 2000 }}{{ documents is none }}{{ add_generation_prompt }}{{ missing is defined }}",
    "{% set ns = namespace(x='a') %}{% set ns.x = ns.x ~ 1 ~ none ~ messages %}{{ ns.x }}{{ 'a' + 'b' * 3 }}",
    "{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m('a') }}{{ ['a', 'b'] | join(', ') }}{{ 'a' | center(9) | indent }}",
    "{{ [1, 2.5] | sum }}{{ [[1], [2]] | sum(start=[]) }}{{ (1, [2], {'a': (3,)}) }}{{ dict(a=[1]).items() }}",
    "{{ messages | join(', ', attribute='content') }}{{ 'a\nb' | indent(width='> ', first=true) }}",
    "{% macro format_map(x) %}{{ x | upper }}{% endmacro %}{{ format_map('a') }}{{ '{a}'.format_map({'a': 1}) }}",
    "{{ [3, 1] | sort | map('string') | batch(1) | list }}{{ ', '.join(messages | map(attribute='role')) }}",
    "{{ 'one two' | wordwrap(4) }}{{ {'b': 1, 'a': [none, true]} | dictsort }}{{ 'a\tb'.expandtabs(4) }}",
    "{{ '{:>5}'.format('x') }}{{ 'a b'.split(' ') }}{{ 'x'.rjust(4) }}{{ '%05d' % 7 }}{{ 'aXb' | replace('X', 'Y') }}",
]
# A list that has two items, and 2 ** 60 when it is written out.
NESTED = "{% set n = namespace(x=['a']) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "joins": "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "adds": "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "blocks": "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
    "{% set n.x = y %}{% endfor %}",
    "nests": "{% set n = namespace(x=['a']) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x | tojson }}",
    "nests, then writes": NESTED + "{{ n.x }}",
    "nests, then joins": NESTED + "{% set y = n.x ~ '' %}",
    "nests, then compares": NESTED + "{% set m = n.x %}" + NESTED + "{{ m == n.x }}",
    "nests, then formats": NESTED + "{{ '%s' % n.x }}",
    "nests tuples, then hashes": NESTED.replace("[n.x, n.x]", "(n.x, n.x)") + "{{ {n.x: 1} }}",
    "nests dictionaries": NESTED.replace("[n.x, n.x]", "{'a': n.x, 'b': n.x}") + "{{ n.x | string }}",
    "nests by addition": NESTED.replace("[n.x, n.x]", "[n.x] + [n.x]") + "{{ n.x | upper }}",
    "nests by multiplication": NESTED.replace("[n.x, n.x]", "[n.x] * 2") + "{{ n.x | pprint }}",
    "nests by a function": NESTED.replace("[n.x, n.x]", "dict(a=n.x, b=n.x)") + "{{ n.x }}",
    "nests by an object": NESTED.replace("[n.x, n.x]", "cycler(n.x, n.x).items") + "{{ n.x }}",
    "nests by a filter": NESTED.replace("[n.x, n.x]", "[1, 2] | map('default', 1) | batch(9, n.x) | list")
    + "{{ n.x }}",
    "nests, then raises": NESTED + "{{ raise_exception(n.x) }}",
    "nests in a generator": "{% set x = ['x' * 9999] * 99 %}{% for b in x | batch(9999, x) %}{{ b }}{% endfor %}",
    "adds lists up": "{{ ([[1, 1, 1]] * 99999) | sum(start=[]) | length }}",
    "multiplies": "{{ 'x' * 10 ** 10 }}",
    "multiplies constants": "{{ " + " ~ ".join(["'x' | center(4000000)"] * 200) + " }}",
    "raises to a power": "{{ 10 ** (10 ** 9) }}",
    "squares": "{% set n = namespace(x=9) %}{% for a in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "reads a number": "{{ ('f' * 8000000) | int(base=16) // 3 }}",
    "formats": "{{ '%99999999999d' % 1 }}{{ '{:99999999999}'.format(1) }}",
    "formats a text many times": "{{ ('{0}' * 1000).format('x' * 8000000) }}",
    "formats a value many times": "{{ ('%(a)s' * 1000) % {'a': 'x' * 8000000} }}",
    "translates": "{{ ('a' * 9999).translate({97: 'x' * 999999}) }}",
    "expands tabs": "{{ ('\t' * 9999).expandtabs(999999) }}",
    "joins by a filter": "{{ ([''] * 9999) | join('x' * 999999) }}",
    "joins by a method": "{{ ('x' * 999999).join(([''] * 9999) | map('string')) }}",
    "indents": "{{ ('\n' * 9999) | indent('x' * 999999) }}",
    "indents JSON": "{{ [[[1]]] | tojson(indent=99999999) }}",
    "wraps lines": "{{ ('a ' * 9999) | wordwrap(1, wrapstring='x' * 999999) }}",
    "pads": "{{ 'x' | center(10 ** 11) }}{{ 'x'.ljust(10 ** 11) }}",
    "replaces": "{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}",
    "writes": "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
}


def template(source: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, {"bos_token": "<s>"})


@pytest.mark.parametrize("source", FEATURES)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
def test_a_prompt_is_transformers_prompt(source, tools):
    from transformers.utils.chat_template_utils import render_jinja_template

    (expected,), _ = render_jinja_template([USER], tools=tools, chat_template=source, bos_token="<s>")
    assert template(source).render(USER, tools, add_generation_prompt=False) == expected


@pytest.mark.parametrize("trim", ["", " | trim"])
@pytest.mark.parametrize("content", ["One, two", "One, two ", "\n One"])
def test_the_last_message_is_continued_as_in_transformers(trim, content):
    from transformers.utils.chat_template_utils import render_jinja_template

    source = f"{{% for m in messages %}}<|{{{{ m.role }}}}|>{{{{ m.content{trim} }}}}<|end|>\n{{% endfor %}}"
    messages = [*USER, {"role": "assistant", "content": content}]
    (expected,), _ = render_jinja_template([messages], chat_template=source, continue_final_message=True)
    prompt = template(source).render(messages, add_generation_prompt=False, continue_final_message=True)
    assert prompt == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('Roles must alternate') }}", "the chat template rejected them: Roles must alternate"),
        ("{{ messages[7].content }}", "list object has no element 7"),
        ("{{ messages.append(1) }}", "is unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_what_a_template_raises_is_an_invalid_parameter_with_its_words(source, words, tmp_path):
    folder = shutil.copytree(TINY, tmp_path / "checkpoint")
    (folder / "chat_template.jinja").write_text(source)
    with pytest.raises(MlflowException, match=words) as refused:
        ChatTokenizer(folder).encode_chat(USER)
    assert refused.value.get_http_status_code() == 400


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_without_end_is_stopped(kind, monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 1.0)
    start = time.monotonic()
    with pytest.raises(TemplateError, match="does not end: stopped after 1 s|exceeds a limit: it makes"):
        template(ENDLESS[kind]).render(USER)
    assert time.monotonic() - start < 15


def test_a_namespace_does_not_show_its_values():
    nested = NESTED.replace("[n.x, n.x]", "namespace(a=n.x, b=n.x)")
    assert template(nested + "{{ n.x }}").render(USER) == "<Namespace>"


def test_a_template_with_many_values_keeps_within_the_limits():
    turns = [{"role": "user", "content": f"{number} " * 100} for number in range(500)]
    source = (
        "{% set n = namespace(all=[], text='') %}{% for m in messages %}"
        "{% set n.all = n.all + [{'role': m.role, 'words': m.content.split(' ')}] %}"
        "{% set n.text = m.content | replace('1', 'one') | trim %}{{ n.text ~ '\n' }}{% endfor %}{{ n.all | length }}"
    )
    assert template(source).render(turns).endswith("\n500")


def test_other_requests_go_on_while_a_template_is_stopped(monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 1.0)
    refused: list[str] = []

    def run_endless() -> None:
        try:
            template(ENDLESS["loops"]).render(USER)
        except TemplateError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run_endless) for _ in range(3)]
    for thread in threads:
        thread.start()
    quick, answers = template("{{ messages[0].content }}"), 0
    while any(thread.is_alive() for thread in threads):
        assert quick.render(USER) == USER[0]["content"]
        answers += 1
    assert len(refused) == 3
    assert answers > 10


def save(folder: Path, source: str | list | None, **config: object) -> Path:
    content = config | ({} if source is None else {"chat_template": source})
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_template_is_read_from_each_place_that_transformers_knows(tmp_path):
    assert ChatTemplate.read(save(tmp_path, None)) is None
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    found = ChatTemplate.read(save(tmp_path, named))
    assert found and (found.render(USER), found.render(USER, TOOLS)) == ("d", "t")
    (tmp_path / "chat_template.jinja").write_text("\ufefffile", encoding="utf-8")
    found = ChatTemplate.read(tmp_path)
    assert found and found.render(USER) == "file"


def test_roles_that_a_template_leaves_out_are_found():
    source = "{% for m in messages %}{% if m.role in ('user', 'assistant') %}{{ m.content }}{% endif %}{% endfor %}"
    assert template(source).dropped_roles() == {"system", "tool"}
    raising = "{% if messages[0].role == 'system' %}{{ raise_exception('No') }}{% endif %}{{ messages }}"
    assert template(raising).dropped_roles() == frozenset()


def test_a_role_that_is_left_out_is_refused_by_name():
    with pytest.raises(MlflowException, match=r"messages\[1\]\.role is 'tool'; this model's chat template leaves"):
        ChatTokenizer(TINY).encode_chat([*USER, {"role": "tool", "content": "42"}])


def test_the_token_that_ends_a_turn_is_found(tmp_path):
    tokens = {"1": {"content": "<|end|>"}, "2": {"content": "<|end|>x"}, "3": {"content": "<|user|>"}}
    source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n<|end|>\n{% endfor %}</s>"
    assert turn_end_token(save(tmp_path, source, added_tokens_decoder=tokens)) == "<|end|>"
    assert turn_end_token(save(tmp_path, "{{ messages }}", added_tokens_decoder=tokens)) is None


def test_the_check_names_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 1.0)
    assert check_template(save(tmp_path, None)) is None
    assert check_template(save(tmp_path, "{{ messages }}")) is None
    assert "cannot be read" in str(check_template(save(tmp_path, "{% if %}")))
    assert "does not end" in str(check_template(save(tmp_path, ENDLESS["loops"])))
    on_system = "{% if messages[0].role == 'system' %}" + ENDLESS["adds"] + "{% endif %}"
    assert "exceeds a limit" in str(check_template(save(tmp_path, on_system)))
