"""A client for S3 with the endpoint, credentials and options that MLflow's own would take. Needs boto3."""

from __future__ import annotations

import os
from typing import Any, Final

from boto3.session import Session
from botocore import UNSIGNED
from botocore.config import Config
from mlflow.environment_variables import (
    MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_S3_ENDPOINT_URL,
    MLFLOW_S3_IGNORE_TLS,
)

_CONNECT_SECONDS: Final = 10
_CONNECTIONS: Final = 16
"""Four checkpoints at once, of four streams each."""


def s3_client(endpoint: str | None = None) -> Any:
    """A client of boto3 that may be used from several threads; one request is one try.

    Args:
        endpoint: The store's address; None takes MLFLOW_S3_ENDPOINT_URL, or what boto3 finds.
    """
    signature = os.environ.get("MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION", "s3v4")
    config = Config(
        signature_version=UNSIGNED if signature.lower() == "unsigned" else signature,
        s3={"addressing_style": MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE.get()},
        retries={"total_max_attempts": 1},  # tries are counted in one place (Streams)
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=MLFLOW_HTTP_REQUEST_TIMEOUT.get(),
        max_pool_connections=_CONNECTIONS,
    )
    return Session().client(
        "s3",
        config=config,
        endpoint_url=endpoint or MLFLOW_S3_ENDPOINT_URL.get(),
        verify=False if MLFLOW_S3_IGNORE_TLS.get() else None,
    )


def owner_options() -> dict[str, str]:
    """What to pass with each request so that it fails on a bucket of another account than the user names."""
    owner = os.environ.get("MLFLOW_S3_EXPECTED_BUCKET_OWNER")
    return {"ExpectedBucketOwner": owner} if owner else {}
