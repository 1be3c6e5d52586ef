"""Keys and limits."""

import pytest

from steps.common.errors import StepError
from steps.serving.keys import FILE_VARIABLE, KEY_VARIABLE, Keys, check_host
from steps.serving.limits import VARIABLE, Limits
from steps.serving.models import CONFIG_VARIABLE, config_changes, served_name

pytestmark = pytest.mark.unit


def test_limits_come_from_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, '{"requests": 3, "ping_s": 0.5}')
    assert (Limits.from_environment().requests, Limits.from_environment().ping_s) == (3, 0.5)


@pytest.mark.parametrize(
    ("text", "part"), [("[1]", "no JSON object"), ('{"request": 1}', "'requests'"), ('{"requests": 0}', "at least 1")]
)
def test_a_wrong_limit_is_refused(monkeypatch, text, part):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(StepError, match=part):
        Limits.from_environment()


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_wrong_change_of_the_model_config_is_refused(monkeypatch, text):
    monkeypatch.setenv(CONFIG_VARIABLE, text)
    with pytest.raises(StepError, match="no JSON object"):
        config_changes()


def test_keys_are_read_again(monkeypatch, tmp_path):
    file = tmp_path / "keys"
    file.write_text("first-long-key\n")
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    keys = Keys()
    assert keys.admit({"x-api-key": "first-long-key"})
    file.write_text("second-long-key\n")
    keys.reload()
    assert keys.admit({"authorization": "bearer second-long-key"})
    assert not keys.admit({"x-api-key": "first-long-key"})
    file.write_text("short\n")
    with pytest.raises(StepError, match="too short"):
        keys.reload()
    assert keys.admit({"x-api-key": "second-long-key"})


def test_a_server_without_a_key_stays_on_this_machine(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    check_host("127.0.0.1", 0)
    check_host("0.0.0.0", 1)
    with pytest.raises(StepError, match=KEY_VARIABLE):
        check_host("0.0.0.0", 0)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("models:/tiny-phi3@champion", "tiny-phi3"),
        ("models:/tiny-phi3/3", "tiny-phi3"),
        ("models:/main.models.phi@champion", "main.models.phi"),
        ("runs:/0123/model", "model"),
        ("models:/m-0123456789abcdef", "m-0123456789abcdef"),
    ],
)
def test_the_name_of_a_model(uri, name):
    assert served_name(uri) == name
