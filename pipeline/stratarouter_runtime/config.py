"""The runtime's settings: one frozen object, checked as a whole before anything starts.

Precedence: keyword arguments > environment > TOML file > defaults. The file is named by ``config_file`` (keyword, or
``STRATAROUTER_CONFIG``); its keys are the field names. Knows no client and opens nothing but that file.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from stratarouter_runtime.errors import ConfigurationError

log = logging.getLogger("stratarouter.config")

KIB = 1024
MIB = 1024 * KIB
MAX_REQUEST_BYTES = 12 * MIB
"""Upper bound of ``max_request_bytes``: what the requests topic takes, and fits a dead letter of 20 MiB in base64."""
MAX_RESPONSE_BYTES = 4 * MIB
"""Upper bound of ``max_response_bytes``: what the responses topic takes."""
MAX_EMBEDDING_DIMENSION = 4096
"""The largest vector taken; today's embedding models stop at 3,072 or 4,096."""
MAX_TTL_S = 315_360_000
"""Ten years: the longest time to live, far inside what Redis's millisecond clock takes."""
ENVIRONMENT_PREFIX = "STRATAROUTER_"
OWN_ENVIRONMENT_NAMES = {
    "config_file": "STRATAROUTER_CONFIG",
    "routes_file": "STRATAROUTER_ROUTES",
    "bootstrap_servers": "KAFKA_BOOTSTRAP_SERVERS",
    "database_url": "DATABASE_URL",
    "redis_url": "REDIS_URL",
    "openai_api_key": "OPENAI_API_KEY",
    "anthropic_api_key": "ANTHROPIC_API_KEY",
    "otel_exporter_otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "prometheus_port": "PROMETHEUS_PORT",
}
"""Fields whose variable is a name that other tools share; every other field's is STRATAROUTER_<FIELD>."""

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_URL_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^\s]*@|(password=)[^&\s]*", re.IGNORECASE)
_FILE_PATHS = ("routes_file", "ssl_cafile", "ssl_certfile", "ssl_keyfile")


def _topic_name(value: str) -> str:
    if not _TOPIC_NAME.fullmatch(value) or value in (".", ".."):
        raise ValueError("must be 1 to 249 of A-Z a-z 0-9 . _ -")
    return value


def _topic_prefix(value: str) -> str:
    return value if value == "" else _topic_name(value)


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL with a host")
    return value


def _database_url(value: str) -> str:
    if urlsplit(value).scheme not in ("postgresql", "postgres"):
        raise ValueError("must be a postgresql:// URL")
    return value


def _redis_url(value: str) -> str:
    if urlsplit(value).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must be a redis://, rediss:// or unix:// URL")
    return value


def _reference(value: str) -> str:
    module, colon, name = value.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ValueError("must be module:name")
    return value


def _said(value: SecretStr | None) -> SecretStr | None:
    # As an empty variable of the environment: an empty token would be one that everybody knows.
    return value if value is not None and value.get_secret_value().strip() else None


def _servers(value: str) -> str:
    for server in value.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError("must be host:port, several separated by commas")
    return value


CONSIDERED_FROM = 0.8
"""Below it next to no two questions of any embedder ask the same past the guard."""
DRAIN_MARGIN_S = 5.0
"""For the journal and the last commits, after the longest call has ended."""

TopicName = Annotated[str, AfterValidator(_topic_name)]
TopicPrefix = Annotated[str, AfterValidator(_topic_prefix)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Secret = Annotated[SecretStr | None, AfterValidator(_said)]
Similarity = Annotated[float, Field(gt=0, le=1)]
"""A cosine similarity that counts as the same: above 0, at most 1."""
Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 takes a free one."""


class RuntimeConfig(BaseSettings):
    """Every setting of the runtime. Build it with keywords, or with ``RuntimeConfig.load()``.

    Raises ConfigurationError naming every wrong field, its value (never a secret's) and the rule. Durations are
    seconds unless the name says ``_ms``; sizes are bytes.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, hide_input_in_errors=True
    )

    config_file: Path | None = None

    # execution
    execution_timeout: float = Field(60.0, gt=0)
    max_retries: int = Field(3, ge=0, le=100)
    retry_delay_ms: int = Field(100, ge=0)
    provider_concurrency: int = Field(256, ge=1)
    on_ambiguous: Literal["retry", "fail"] = "retry"
    transport: Literal["inline", "kafka"] = "inline"
    max_in_flight: int = Field(5000, ge=1)
    """Requests held at once by one processor of a worker (``enrich`` and ``execute`` in one hold twice as many), which
    takes no more records then, or by one bridge, whose callers then wait for their turn within their ``timeout_s``."""
    max_in_flight_bytes: int = Field(256 * MIB, ge=MIB)
    """Of the requests held at once by one processor of a worker, with their responses until these are committed."""
    lane_max_in_flight: int = Field(2000, ge=1)
    """Requests held at once by one lane."""
    gc_threshold: int = Field(50_000, ge=0)
    """In-process: while a bridge is started, Python looks for garbage in cycles once so many more objects were made
    than freed, instead of every 700; calls in flight cost up to half as much. 0: the process' own setting stays."""
    start_timeout_s: float = Field(120.0, ge=0)
    """How long a starting worker waits for a broker or a database that is away."""
    drain_timeout_s: float | None = Field(None, ge=0)
    """How long calls in flight may take to end when a worker stops; None: ``execution_timeout`` and 5 s."""
    poison_tries: int = Field(3, ge=1, le=100)

    # cache
    cache_enabled: bool = True
    cache_backend: Literal["redis", "memory"] = "redis"
    cache_ttl: int = Field(3600, ge=1, le=MAX_TTL_S)
    cache_similarity_threshold: Similarity = 0.95
    cache_max_error_rate: float | None = Field(None, ge=0.001, le=0.5)
    """At most this share of the hits by likeness may be wrong: the runtime learns per scope how alike is alike enough,
    from comparisons with fresh answers, and serves nothing by likeness before. None: the threshold alone says."""
    cache_shadow_share: float = Field(0.05, gt=0, le=1)
    """Of the hits by likeness under such a bound, the share that is checked by a call of its own, which is paid for."""
    cache_comparer: Annotated[str, AfterValidator(_reference)] | None = None
    """What judges whether two answers say the same, as ``module:name``; None: ``engine/compare.py``."""
    cache_guard: Literal["strict", "lenient"] = "strict"
    """How much may differ between two texts that get one answer; of the cache and of batching."""
    cache_max_entries: int = Field(50_000, ge=1)
    """Kept in this process: of ``memory`` all there is, of ``redis`` what can be found by likeness."""
    cache_max_bytes: int = Field(256 * MIB, ge=MIB)
    """Likewise."""
    cache_eviction: Literal["lru", "cost"] = "lru"
    """Who goes first when ``memory`` is full: the least recently used, or who saves least money for its size."""
    cache_control: Literal["workers", "everywhere", "off"] = "workers"
    """Who follows the cache-control topic: workers, in-process bridges too (they need the broker then), or nobody."""
    cache_timeout_ms: int = Field(150, ge=1, le=60_000)
    """Of one question to Redis; then the request goes on without it, and Redis is left alone for 0.1 to 1 s."""
    redis_url: Annotated[str, AfterValidator(_redis_url)] = "redis://localhost:6379"

    # batch
    batch_enabled: bool = True
    batch_window_ms: int = Field(50, ge=0, le=60_000)
    """How long a prompt waits at most for others to share its call: of embedders, and of providers that take several in
    one call (``openai-completions``). Calls of other providers never wait; requests alike in flight share one."""
    batch_max_size: int = Field(32, ge=1, le=10_000)
    """Prompts in one such call at most."""
    batch_similarity_threshold: Similarity = 0.98

    # state
    state_backend: Literal["postgresql", "memory"] = "postgresql"
    database_url: Annotated[str, AfterValidator(_database_url)] = "postgresql://localhost/stratarouter"
    checkpoint_interval: float = Field(10.0, gt=0)
    journal_retention_s: float = Field(1_209_600.0, ge=0)
    """Seconds that results are kept, 14 days by default; longer than topics keep requests. 0 keeps them for ever."""
    heartbeat_ttl_s: float = Field(5.0, gt=0)

    # observability
    metrics_enabled: bool = True
    tracing_enabled: bool = True
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_texts: bool = False
    """Whether what was asked and answered is logged, a line for each response; off, no text is in any log."""
    otel_exporter_otlp_endpoint: HttpUrl | None = None
    prometheus_port: Port = 9090
    """Of a worker's HTTP endpoint; an in-process bridge has one where this is set."""
    http_host: str = Field("127.0.0.1", min_length=1)
    console_enabled: bool = True
    """Whether the console's pages stand on the worker's HTTP port. Reading them is open on loopback only."""
    console_token: Secret = None
    """What changes, texts, and on another address than loopback all reading, need."""

    usage_enabled: bool = True
    """Whether lanes publish what their responses cost and saved beside them (``usage_deltas_topic``)."""

    # providers, routes and embedder
    openai_api_key: Secret = None
    anthropic_api_key: Secret = None
    routes_file: Path | None = None
    embedder: Literal["none", "local", "openai"] = "none"
    """What makes vectors for requests without. Nobody having said, the first of them is a warning."""
    embedder_base_url: HttpUrl | None = None
    embedder_model: str | None = Field(None, min_length=1)
    embedding_dimension: int | None = Field(None, ge=1, le=MAX_EMBEDDING_DIMENSION)

    # Kafka
    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = "localhost:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: Secret = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    group_id: str = Field("stratarouter", min_length=1, max_length=200)
    group_instance_id: str | None = Field(None, min_length=1, max_length=200)
    """A name that this worker keeps over restarts (a pod of a StatefulSet): one that is back within
    ``session_timeout_ms`` takes its partitions up again, and the others hear nothing of it (static membership)."""
    processing_guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    session_timeout_ms: int = Field(10_000, ge=1000, le=1_800_000)
    transaction_timeout_ms: int = Field(60_000, ge=1000, le=900_000)
    offset_metadata_max_bytes: int = Field(4096, ge=256)

    # topics
    topic_prefix: TopicPrefix = ""
    requests_topic: TopicName = "requests"
    executions_topic: TopicName = "executions"
    responses_topic: TopicName = "responses"
    dead_letter_topic: TopicName = "dead-letter"
    cache_control_topic: TopicName = "cache-control"
    usage_deltas_topic: TopicName = "usage-deltas"
    usage_topic: TopicName = "usage"
    replication_factor: int = Field(-1, ge=-1)
    """Of topics that ``topics apply`` creates; -1 leaves it to the broker."""
    reply_topic_prefix: TopicName = "responses"

    # bounds of one record
    max_request_bytes: int = Field(1 * MIB, ge=KIB, le=MAX_REQUEST_BYTES)
    max_response_bytes: int = Field(1_000_000, ge=KIB, le=MAX_RESPONSE_BYTES)
    # Below Kafka's default max.message.bytes (1,048,588): a caller's own reply topic must take every response.
    max_nesting_depth: int = Field(32, ge=4, le=200)

    def __init__(self, **settings: Any) -> None:
        """Check ``settings`` together with the environment and the file."""
        try:
            super().__init__(**settings)
        except ValidationError as exc:
            # Not chained: pydantic's own text holds the values, secrets among them.
            raise ConfigurationError(_explain(exc.errors(include_url=False), settings)) from None
        problems = _cross_field_problems(self)
        if problems:
            raise ConfigurationError(_numbered(problems))
        _tell_of_unread(os.environ)

    @classmethod
    def load(cls, file: str | os.PathLike[str] | None = None, **settings: Any) -> Self:
        """Build from ``file`` (TOML; None: ``STRATAROUTER_CONFIG``, if set), environment and keywords."""
        if file is None:
            return cls(**settings)
        return cls(**settings, config_file=Path(file))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources, first wins. The stock environment source is replaced by one that knows our names."""
        del env_settings, dotenv_settings, file_secret_settings
        assert isinstance(init_settings, InitSettingsSource)
        path = init_settings.init_kwargs.get("config_file") or os.environ.get(environment_name("config_file"))
        return init_settings, _Environment(settings_cls), _File(settings_cls, path)

    @property
    def least_similarity(self) -> float:
        """The least likeness at which an answer is considered: the threshold; where a bound on wrong hits chooses the
        threshold and nobody set one, CONSIDERED_FROM.
        """
        if self.cache_max_error_rate is None or "cache_similarity_threshold" in self.model_fields_set:
            return self.cache_similarity_threshold
        return CONSIDERED_FROM

    @property
    def expects_vectors(self) -> bool:
        """Whether likeness is wanted and nobody said that it is to do without an embedder."""
        return (self.cache_enabled or self.batch_enabled) and "embedder" not in self.model_fields_set

    @property
    def bridge_port(self) -> int | None:
        """Where an in-process bridge serves its metrics; None, nowhere: a library takes no port that nobody named."""
        named = self.metrics_enabled and "prometheus_port" in self.model_fields_set
        return self.prometheus_port if named else None

    @property
    def drain_s(self) -> float:
        """``drain_timeout_s``, or what its None stands for."""
        return self.execution_timeout + DRAIN_MARGIN_S if self.drain_timeout_s is None else self.drain_timeout_s

    def topic(self, name: str) -> str:
        """The full name of a topic of ours: ``topic_prefix`` + ``name``."""
        return self.topic_prefix + name

    def redacted(self) -> dict[str, Any]:
        """Every setting as it may be shown: secrets masked, passwords taken out of URLs."""
        return {name: _shown(name, getattr(self, name)) for name in type(self).model_fields}

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return list(self.redacted().items())


def environment_name(field: str) -> str:
    """The environment variable of a field."""
    return OWN_ENVIRONMENT_NAMES.get(field, ENVIRONMENT_PREFIX + field.upper())


_told: set[str] = set()


def _tell_of_unread(environment: Mapping[str, str]) -> None:
    """Once for each: variables that were probably meant for us. No error: others may begin with the same word."""
    fields = RuntimeConfig.model_fields
    known = {environment_name(field) for field in fields}
    for name in environment:
        if not name.startswith(ENVIRONMENT_PREFIX) or name in known or name in _told:
            continue
        field = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        near = [field] if field in fields else difflib.get_close_matches(field, fields, n=1, cutoff=0.8)
        if near:
            _told.add(name)
            log.warning("environment variable %s is not read; did you mean %s?", name, environment_name(near[0]))


class _Environment(PydanticBaseSettingsSource):
    """The process's environment; an empty variable counts as unset, as shells and compose files leave them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        del field
        return os.environ.get(environment_name(field_name)), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: os.environ.get(environment_name(name)) for name in self.settings_cls.model_fields}
        return {name: value.strip() for name, value in found.items() if value is not None and value.strip()}


class _File(PydanticBaseSettingsSource):
    """The TOML file. Relative paths in it are relative to it."""

    def __init__(self, settings_cls: type[BaseSettings], path: str | Path | None) -> None:
        super().__init__(settings_cls)
        self._path = None if path is None or str(path) == "" else Path(path)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        del field
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        values = _read_toml(self._path)
        for name in _FILE_PATHS:
            if isinstance(values.get(name), str):
                values[name] = self._path.parent / values[name]
        return values


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"the configuration file {path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"the configuration file {path} is not TOML: {exc}") from exc


def _cross_field_problems(config: RuntimeConfig) -> list[str]:
    problems = []
    if "SASL" in config.security_protocol and (config.sasl_username is None or config.sasl_password is None):
        problems.append(f"security_protocol = {config.security_protocol!r} needs sasl_username and sasl_password")
    if (config.ssl_certfile is None) != (config.ssl_keyfile is None):
        problems.append("ssl_certfile and ssl_keyfile must be set together")
    if config.embedder == "openai" and config.embedder_model is None:
        problems.append("embedder = 'openai' needs embedder_model")
    names = [getattr(config, name) for name in type(config).model_fields if name.endswith("_topic")]
    problems += [f"topic name {name!r} is used for two topics" for name in sorted(set(names)) if names.count(name) > 1]
    if max(map(len, names)) + len(config.topic_prefix) > 249:
        problems.append(f"topic_prefix = {config.topic_prefix!r} makes a topic name longer than 249 characters")
    return problems


def _explain(errors: list[ErrorDetails], keywords: Mapping[str, Any]) -> str:
    return _numbered([_problem(error, keywords) for error in errors])


def _numbered(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} settings are wrong: " + "; ".join(f"({n}) {p}" for n, p in enumerate(problems, 1))


def _problem(error: ErrorDetails, keywords: Mapping[str, Any]) -> str:
    field = str(error["loc"][0]) if error["loc"] else "configuration"
    if error["type"] == "extra_forbidden":
        return _unknown(field, from_keyword=field in keywords)
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{field} = {_shown(field, error['input'])!r} ({_origin(field, keywords)}) {rule}"


def _unknown(field: str, *, from_keyword: bool) -> str:
    known = difflib.get_close_matches(field, RuntimeConfig.model_fields, n=1)
    hint = f"; did you mean {known[0]!r}?" if known else ""
    return f"unknown setting {field!r} ({'keyword' if from_keyword else 'configuration file'}){hint}"


def _origin(field: str, keywords: Mapping[str, Any]) -> str:
    if field in keywords:
        return "keyword"
    variable = environment_name(field)
    return f"environment variable {variable}" if os.environ.get(variable, "").strip() else "configuration file"


def _shown(field: str, value: Any) -> Any:
    """``value`` as it may stand in a message or a log."""
    secret = "SecretStr" in str(RuntimeConfig.model_fields[field].annotation)
    if secret:
        return None if value is None else "**********"
    if isinstance(value, str):
        return _URL_PASSWORD.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", value)
    return value
