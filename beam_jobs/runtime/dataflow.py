"""Google Cloud Dataflow: what its workers need, and what is told before anything is submitted."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    TestOptions,
    WorkerOptions,
)

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError, first_line

# One Python process for each virtual core, and each imports TensorFlow: 4 GB a core. The image or
# the installation takes some 4 GB of disk, spilled rows are on the store.
_SIZES = {"machine_type": "e2-standard-4", "disk_size_gb": 50}
_SETUP_FILE = Path(__file__).resolve().parents[2] / "setup.py"
_SECONDS = 20.0


def arguments(options: PipelineOptions) -> list[str]:
    """What a job needs besides the user's arguments.

    Raises:
      UserError: nothing says how workers get multihot, or the job would not run.
    """
    for name, is_given in (
        ("template_location", options.view_as(GoogleCloudOptions).template_location),
        ("dry_run", options.view_as(TestOptions).dry_run),
    ):
        if is_given:
            raise UserError(
                f"--{name}: received one, and a job that is not run publishes nothing, because "
                "this process writes the manifest when the job has ended; expected none"
            )
    given = options.get_all_options(drop_default=True)
    needed = [f"--{name}={value}" for name, value in _SIZES.items() if name not in given]
    setup = options.view_as(SetupOptions)
    if not (
        options.view_as(WorkerOptions).sdk_container_image
        or setup.setup_file
        or setup.extra_packages
        or setup.requirements_file
    ):
        if not _SETUP_FILE.exists():
            raise UserError(
                "--runner=DataflowRunner: received nothing that brings multihot to the workers; "
                "expected --sdk_container_image=IMAGE, made of the Dockerfile's target `worker`, "
                "or --extra_package=multihot-VERSION-py3-none-any.whl"
            )
        needed.append(f"--setup_file={_SETUP_FILE}")
    return needed


def check_access(options: PipelineOptions) -> None:
    """Raises UserError unless there are credentials with which Google's services answer.

    Beam itself goes on without credentials, and tries for minutes to reach what cannot be reached.
    """
    cloud = options.view_as(GoogleCloudOptions)
    if cloud.no_auth:
        return
    try:
        import google.auth
        import google.auth.exceptions
        import google.auth.transport.requests
    except ImportError:
        raise UserError(
            "--runner=DataflowRunner: this Python has no Google Cloud libraries; expected those of "
            "`pip install 'multihot[gcp]'`"
        ) from None
    how = (
        "expected credentials, such as of `gcloud auth application-default login` or a service "
        "account's file in GOOGLE_APPLICATION_CREDENTIALS, and a way to oauth2.googleapis.com"
    )
    logging.getLogger("google.auth").setLevel(logging.ERROR)
    try:
        credentials, _ = google.auth.default(scopes=cloud.gcp_oauth_scopes)
        request = google.auth.transport.requests.Request()
        credentials.refresh(lambda *args, **kw: request(*args, **kw | {"timeout": _SECONDS}))
    except google.auth.exceptions.GoogleAuthError as error:
        raise UserError(
            f"--runner=DataflowRunner: Google Cloud cannot be used: {first_line(error)}; {how}"
        ) from None


def check_place(path: str, *, what: str) -> None:
    """Raises UserError if the workers cannot reach a place.

    Args:
      path: a path or URL.
      what: the config key or flag that names it.
    """
    if not places.is_remote(path):
        raise UserError(
            f"{what}: received {path} with --runner=DataflowRunner, whose workers share no "
            "directory with this machine; expected a place on a store, such as gs://BUCKET/..."
        )


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Turns what Google's services refuse during the block into a UserError."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("google", "requests", "urllib3"):
            raise
        raise UserError(
            f"--runner=DataflowRunner: {type(error).__name__}: {first_line(error)}; nothing is "
            "published. Expected a project, a region, a bucket and rights with which Dataflow's "
            "service takes jobs"
        ) from None
