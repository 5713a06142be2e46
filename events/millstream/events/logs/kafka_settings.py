"""What people may tell the Kafka adapter, and what it makes of it. Secrets go to the connection and nowhere else."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import msgspec
from aiokafka.helpers import create_ssl_context

from millstream.events.errors import BadAddress
from millstream.events.logs.kafka_group import SESSION_TIMEOUT_S
from millstream.events.logs.kafka_producer import APPEND_TIMEOUT_S
from millstream.events.logs.kafka_reader import FETCH_WAIT_MS

_SSL_FILES = {
    "ssl_cafile": "cafile",
    "ssl_capath": "capath",
    "ssl_cadata": "cadata",
    "ssl_certfile": "certfile",
    "ssl_keyfile": "keyfile",
    "ssl_password": "password",
}
_CONNECTION = {
    "security_protocol",
    "ssl_context",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "sasl_kerberos_service_name",
    "sasl_kerberos_domain_name",
    "sasl_oauth_token_provider",
}
_OURS = {
    "client_id": str,
    "request_timeout_ms": float,
    "append_timeout_s": float,
    "session_timeout_s": float,
    "fetch_max_wait_ms": float,
}


class KafkaSettings(msgspec.Struct, frozen=True):
    """connect: what goes to aiokafka's connection, secrets and all; it is never shown."""

    connect: dict[str, Any]
    client_id: str = "millstream"
    request_timeout_s: float = 10.0
    append_timeout_s: float = APPEND_TIMEOUT_S
    session_timeout_s: float = SESSION_TIMEOUT_S
    fetch_wait_ms: int = FETCH_WAIT_MS

    def __repr__(self) -> str:
        return f"KafkaSettings({', '.join(sorted(self.connect))})"


def read_settings(given: Mapping[str, Any] | None) -> KafkaSettings:
    """Names as aiokafka writes them, or with dots. Raises `BadAddress` for a name or a file that can't be used."""
    named = {name.replace(".", "_"): value for name, value in (given or {}).items()}
    unknown = sorted(set(named) - _CONNECTION - set(_SSL_FILES) - set(_OURS))
    if unknown:
        raise BadAddress(
            f"the Kafka setting {unknown[0]!r} isn't known. There are:"
            f" {', '.join(sorted({*_CONNECTION, *_SSL_FILES, *_OURS}))}."
        )
    ours = {name: _number_or_text(name, named[name]) for name in _OURS if named.get(name) is not None}
    return KafkaSettings(
        connect=_connection(named),
        client_id=ours.get("client_id", "millstream"),
        request_timeout_s=ours.get("request_timeout_ms", 10_000.0) / 1000,
        append_timeout_s=ours.get("append_timeout_s", APPEND_TIMEOUT_S),
        session_timeout_s=ours.get("session_timeout_s", SESSION_TIMEOUT_S),
        fetch_wait_ms=int(ours.get("fetch_max_wait_ms", FETCH_WAIT_MS)),
    )


def _number_or_text(name: str, value: Any) -> Any:
    try:
        return _OURS[name](value)
    except (TypeError, ValueError):
        raise BadAddress(f"the Kafka setting {name!r} is no number.") from None


def _connection(named: Mapping[str, Any]) -> dict[str, Any]:
    connect = {name: named[name] for name in _CONNECTION if named.get(name) is not None}
    files = {ours: named[name] for name, ours in _SSL_FILES.items() if named.get(name) is not None}
    protocol = connect.setdefault("security_protocol", "PLAINTEXT")
    if protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise BadAddress(
            f"security_protocol {protocol!r} isn't known. There are PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL."
        )
    if protocol.endswith("SSL") and "ssl_context" not in connect:
        try:
            connect["ssl_context"] = create_ssl_context(**files)
        except (OSError, ssl.SSLError) as err:
            raise BadAddress(
                f"the TLS files can't be used: {err}. Check {', '.join(sorted(n for n in named if n in _SSL_FILES))}."
            ) from err
    if protocol.startswith("SASL") and "sasl_mechanism" not in connect:
        raise BadAddress(f"security_protocol {protocol} needs sasl_mechanism (PLAIN, SCRAM-SHA-256, ...).")
    if connect.get("sasl_mechanism") == "PLAIN" or str(connect.get("sasl_mechanism")).startswith("SCRAM"):
        for name in ("sasl_plain_username", "sasl_plain_password"):
            if name not in connect:
                raise BadAddress(f"sasl_mechanism {connect['sasl_mechanism']} needs {name}.")
    return connect
