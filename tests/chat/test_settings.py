"""The engine's settings, as the model config gives them."""

import pytest
from mlflow.exceptions import MlflowException

from steps.chat.settings import Settings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"threads": -1}, "threads is -1; expected a whole number of at least 0"),
        ({"parallel": 0}, "parallel is 0"),
        ({"queue": "many"}, "queue is 'many'"),
        ({"kv_cache_mb": 1.5}, "kv_cache_mb is 1.5"),
        ({"timeout": -0.5}, "timeout is -0.5; expected a number of at least 0"),
        ({"reasoning": "yes"}, "reasoning is 'yes'; expected one of auto, on, off"),
        ({"answer_share": 1.0}, "answer_share is 1.0; expected a number of at least 0 and less than 1"),
        ({"answer_share": -0.1}, "answer_share is -0.1; expected a number of at least 0"),
    ],
)
def test_an_invalid_setting_is_refused(config, message):
    with pytest.raises(MlflowException, match=message):
        Settings.of(config)


def test_settings_are_read_from_the_model_config():
    assert Settings.of({"threads": 3, "model": "phi", "timeout": 1.5}) == Settings(threads=3, timeout=1.5)
