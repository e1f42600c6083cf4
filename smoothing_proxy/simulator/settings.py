"""Where a simulator listens, and who may ask it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from smoothing_proxy.settings_file import Settings

__all__ = ["SimulatorSettings"]


class SimulatorSettings(Settings):
    """A simulator's own settings; what goes wrong in it is told by Faults.

    host: the address to listen on; anyone who reaches it can also read the till and switch faults.
    port, grpc_port: 0 takes a free one. grpc_port matters only to a vendor that speaks gRPC.
    key_id, secret: the one key that is let in; vendors whose keys have no id take the secret alone.
    check_pictures: decode each picture, and so refuse damaged ones and wrong sizes. False saves that time: the
        backend gets the bytes as they came, with the size that their header states.
    tls_cert, tls_key: PEM files, both or neither; for HTTP, gRPC is served without.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)
    grpc_port: int = Field(default=0, ge=0, le=65_535)
    key_id: str = Field(default="simulator", min_length=1)
    secret: SecretStr = Field(default=SecretStr("simulator-secret"), min_length=1)
    check_pictures: bool = True
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _certificate_and_key(self) -> SimulatorSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: both are needed, or neither")
        return self
