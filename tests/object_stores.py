"""Object stores of this process: emulators of S3 and Google Cloud Storage on localhost."""

import contextlib
import logging
import os
import uuid
from collections.abc import Iterator

import pytest

from beam_jobs.contract import places

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of a server that speaks S3."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def make_bucket(address: str) -> str:
    """The URL of a new bucket of a server that speaks S3."""
    import boto3

    name = f"b{uuid.uuid4().hex[:12]}"
    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=name)
    return f"s3://{name}"


@contextlib.contextmanager
def s3_environment(address: str, *, with_endpoint: bool) -> Iterator[None]:
    """The environment of a user of that server; without the endpoint, options must say it."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in CREDENTIALS.items():
            patch.setenv(key, value)
        patch.setenv("AWS_MAX_ATTEMPTS", "2")
        if with_endpoint:
            patch.setenv("AWS_ENDPOINT_URL", address)
        places._store.cache_clear()
        yield
    places.configure({})
    places._store.cache_clear()


@contextlib.contextmanager
def gcs_server() -> Iterator[str]:
    """The address of a server that speaks the protocol of Google Cloud Storage."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    pytest.importorskip("google.cloud.storage")
    logging.getLogger("gcp-storage-emulator").setLevel(logging.ERROR)
    server = emulator.create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    port = server._api._httpd.socket.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


def make_gcs_bucket(address: str) -> str:
    """The URL of a new bucket of the server at STORAGE_EMULATOR_HOST."""
    from google.cloud import storage

    assert os.environ["STORAGE_EMULATOR_HOST"] == address
    name = f"b{uuid.uuid4().hex[:12]}"
    storage.Client(project="p").create_bucket(name)
    return f"gs://{name}"
