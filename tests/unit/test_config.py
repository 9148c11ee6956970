"""Settings: where they come from, which wins, and what a wrong one is answered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from stratarouter_runtime import config as config_module
from stratarouter_runtime.config import RuntimeConfig, environment_name
from stratarouter_runtime.errors import ConfigurationError

DOCUMENTED = {
    "execution_timeout": 60,
    "max_retries": 3,
    "retry_delay_ms": 100,
    "cache_enabled": True,
    "cache_backend": "redis",
    "cache_ttl": 3600,
    "cache_similarity_threshold": 0.95,
    "batch_enabled": True,
    "batch_window_ms": 50,
    "batch_max_size": 32,
    "batch_similarity_threshold": 0.98,
    "state_backend": "postgresql",
    "checkpoint_interval": 10,
    "metrics_enabled": True,
    "tracing_enabled": True,
    "log_level": "info",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting from outside."""
    for name in RuntimeConfig.model_fields:
        monkeypatch.delenv(environment_name(name), raising=False)


def write(folder: Path, text: str) -> Path:
    """A configuration file."""
    path = folder / "runtime.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_documented_ones():
    config = RuntimeConfig()
    assert {name: getattr(config, name) for name in DOCUMENTED} == DOCUMENTED
    assert RuntimeConfig(**DOCUMENTED) == config


@pytest.mark.parametrize(
    ("variable", "text", "field", "expected"),
    [
        ("DATABASE_URL", "postgresql://db/x", "database_url", "postgresql://db/x"),
        ("REDIS_URL", "redis://r:1", "redis_url", "redis://r:1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://o:4317", "otel_exporter_otlp_endpoint", "http://o:4317"),
        ("PROMETHEUS_PORT", "9191", "prometheus_port", 9191),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2", "bootstrap_servers", "a:1,b:2"),
        ("STRATAROUTER_ROUTES", "r.toml", "routes_file", Path("r.toml")),
        ("STRATAROUTER_CACHE_ENABLED", "false", "cache_enabled", False),
        ("STRATAROUTER_EMBEDDING_DIMENSION", " 384 ", "embedding_dimension", 384),
    ],
)
def test_each_variable_sets_its_field(monkeypatch, variable: str, text: str, field: str, expected: object):
    monkeypatch.setenv(variable, text)
    assert getattr(RuntimeConfig(), field) == expected


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "STRATAROUTER_SASL_PASSWORD"])
def test_a_secret_is_read_and_never_shown(monkeypatch, variable: str):
    monkeypatch.setenv(variable, "sk-very-secret")
    config = RuntimeConfig()
    field = next(name for name in RuntimeConfig.model_fields if environment_name(name) == variable)
    assert getattr(config, field).get_secret_value() == "sk-very-secret"
    assert "very-secret" not in f"{config} {config!r} {config.redacted()} {config.model_dump()}"


def test_a_url_with_a_password_is_shown_without_it():
    url = "postgresql://app:p@ss/w:rd@db/x?sslmode=require&password=second"
    config = RuntimeConfig(database_url=url, redis_url="redis://:first@r:6379")
    assert config.database_url == url
    for word in ("p@ss", "w:rd", "second", "first"):
        assert word not in f"{config} {config!r} {config.redacted()}"
    assert "postgresql://app:***@db/x?sslmode=require" in repr(config)


def test_keyword_wins_over_environment_over_file_over_default(monkeypatch, tmp_path):
    file = write(tmp_path, "cache_ttl = 1\nmax_retries = 1\nbatch_max_size = 1")
    monkeypatch.setenv("STRATAROUTER_CACHE_TTL", "2")
    monkeypatch.setenv("STRATAROUTER_MAX_RETRIES", "2")
    config = RuntimeConfig.load(file, cache_ttl=3)
    assert (config.cache_ttl, config.max_retries, config.batch_max_size, config.poison_tries) == (3, 2, 1, 3)


def test_the_file_may_be_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("STRATAROUTER_CONFIG", str(write(tmp_path, "cache_ttl = 7")))
    assert RuntimeConfig().cache_ttl == RuntimeConfig.load().cache_ttl == 7


def test_a_path_in_the_file_is_relative_to_the_file(tmp_path):
    config = RuntimeConfig.load(write(tmp_path, 'routes_file = "routes.toml"'))
    assert config.routes_file == tmp_path / "routes.toml"


@pytest.mark.parametrize("name", ["console_token", "openai_api_key", "anthropic_api_key", "sasl_password"])
@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_an_empty_secret_is_none_wherever_it_stands(name, blank, tmp_path):
    assert getattr(RuntimeConfig(**{name: blank}), name) is None
    file = tmp_path / "runtime.toml"
    file.write_text(f"{name} = {json.dumps(blank)}")
    assert getattr(RuntimeConfig.load(file), name) is None
    assert getattr(RuntimeConfig(**{name: f"x{blank}"}), name).get_secret_value() == f"x{blank}"


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    config = RuntimeConfig()
    assert config.redis_url == "redis://localhost:6379"
    assert config.openai_api_key is None


def test_every_wrong_field_is_named_at_once_with_its_origin(monkeypatch, tmp_path):
    monkeypatch.setenv("STRATAROUTER_MAX_RETRIES", "many")
    with pytest.raises(ConfigurationError) as wrong:
        RuntimeConfig.load(write(tmp_path, "batch_max_size = 0"), cache_ttl=-1)
    message = wrong.value.message
    assert "cache_ttl = -1 (keyword)" in message
    assert "max_retries = 'many' (environment variable STRATAROUTER_MAX_RETRIES)" in message
    assert "batch_max_size = 0 (configuration file)" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cache_similarity_threshold", 0),
        ("cache_similarity_threshold", 1.01),
        ("execution_timeout", float("inf")),
        ("cache_backend", "memcached"),
        ("max_response_bytes", 4 * 1024 * 1024 + 1),
        ("embedding_dimension", 4097),
        ("cache_ttl", 315_360_001),
        ("bootstrap_servers", "localhost"),
        ("bootstrap_servers", "a:1,b"),
        ("database_url", "mysql://x"),
        ("redis_url", "localhost:6379"),
        ("otel_exporter_otlp_endpoint", "localhost:4317"),
        ("requests_topic", "a/b"),
        ("topic_prefix", "a b"),
        ("prometheus_port", 65536),
    ],
)
def test_a_wrong_value_is_refused_with_field_and_value(field: str, value: object):
    with pytest.raises(ConfigurationError) as wrong:
        RuntimeConfig(**{field: value})
    assert wrong.value.message.startswith(f"{field} = {value!r} (keyword) ")


def test_a_wrong_secret_is_not_in_the_message():
    with pytest.raises(ConfigurationError) as wrong:
        RuntimeConfig(openai_api_key=["sk-very-secret"], database_url="mysql://u:hunter2@x")
    assert "very-secret" not in str(wrong.value)
    assert "hunter2" not in str(wrong.value)
    assert wrong.value.__cause__ is None
    assert wrong.value.__suppress_context__


def test_an_unknown_name_is_refused_with_the_one_that_was_meant(tmp_path):
    with pytest.raises(ConfigurationError, match=r"'cache_tll' \(keyword\); did you mean 'cache_ttl'"):
        RuntimeConfig(cache_tll=3)
    with pytest.raises(ConfigurationError, match=r"'max_retry' \(configuration file\); did you mean 'max_retries'"):
        RuntimeConfig.load(write(tmp_path, "max_retry = 3"))


def test_a_file_that_is_missing_or_no_toml_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml cannot be read"):
        RuntimeConfig.load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        RuntimeConfig.load(write(tmp_path, "cache_ttl ="))


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"security_protocol": "SASL_SSL"}, "needs sasl_username and sasl_password"),
        ({"ssl_certfile": "a.pem"}, "must be set together"),
        ({"embedder": "openai"}, "needs embedder_model"),
        ({"requests_topic": "responses"}, "'responses' is used for two topics"),
        ({"topic_prefix": "x" * 245}, "longer than 249"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], rule: str):
    with pytest.raises(ConfigurationError, match=rule):
        RuntimeConfig(**settings)


def test_a_configuration_cannot_be_changed():
    config = RuntimeConfig()
    with pytest.raises(ValidationError):
        config.cache_ttl = 1  # type: ignore[misc]  # that is what is refused


def test_a_topics_full_name_has_the_prefix():
    assert RuntimeConfig(topic_prefix="dev.").topic("requests") == "dev.requests"


def test_with_a_bound_on_wrong_hits_the_threshold_is_looked_for_from_further_down():
    assert RuntimeConfig().least_similarity == 0.95
    assert RuntimeConfig(cache_max_error_rate=0.01).least_similarity == 0.8
    assert RuntimeConfig(cache_max_error_rate=0.01, cache_similarity_threshold=0.9).least_similarity == 0.9


@pytest.mark.parametrize("rate", [0, 0.0001, 0.6, -1])
def test_a_bound_on_wrong_hits_is_within_what_can_be_shown(rate: float):
    with pytest.raises(ConfigurationError, match="cache_max_error_rate"):
        RuntimeConfig(cache_max_error_rate=rate)


def test_a_variable_that_was_probably_meant_for_us_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(config_module, "_told", set())
    for name in ("CACHE_TLL", "DATABASE_URL", "ROUTES_FILE", "CACHE_TTL", "ENGINE", "COMPILE", "SOMETHING_ELSE"):
        monkeypatch.setenv(f"STRATAROUTER_{name}", "5")
    for _ in range(2):
        RuntimeConfig()
    assert sorted(record.getMessage() for record in caplog.records) == [
        "environment variable STRATAROUTER_CACHE_TLL is not read; did you mean STRATAROUTER_CACHE_TTL?",
        "environment variable STRATAROUTER_DATABASE_URL is not read; did you mean DATABASE_URL?",
        "environment variable STRATAROUTER_ROUTES_FILE is not read; did you mean STRATAROUTER_ROUTES?",
    ]
