"""A worker process: the local runner starts it here, other engines on their machines.

`--environment_type=PROCESS` names it. It is started as Beam's container contract says, with --id
and --provision_endpoint, where it asks for everything else. It leaves out the notes that Beam's own
worker writes when it starts and ends.
"""

import argparse
import logging
import os
import signal
import sys

# Such as a warning for every optional cloud library that is not installed. An error reaches the job
# as an exception, with its traceback; here it would be shown a second time.
logging.disable(logging.ERROR)

from beam_jobs.contract.command_line import collect_garbage_rarely  # noqa: E402

collect_garbage_rarely()  # of what is imported next, too

import grpc  # noqa: E402
from apache_beam.portability.api import (  # noqa: E402
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from apache_beam.runners.worker import sdk_worker, sdk_worker_main  # noqa: E402
from apache_beam.runners.worker.worker_id_interceptor import WorkerIdInterceptor  # noqa: E402
from google.protobuf import json_format, text_format  # noqa: E402

sdk_worker.print = lambda *_, **__: None  # it prints the same traceback once more


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    parser.add_argument("--control_endpoint", default="")
    arguments, _ = (
        parser.parse_known_args()
    )  # engines pass more, which the provision service says too
    worker_id = arguments.id.strip("'")  # Prism puts quotes around it
    channel = grpc.intercept_channel(
        grpc.insecure_channel(arguments.provision_endpoint), WorkerIdInterceptor(worker_id)
    )
    request = beam_provision_api_pb2.GetProvisionInfoRequest()
    info = (
        beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        .GetProvisionInfo(request, wait_for_ready=True)
        .info
    )
    channel.close()

    os.environ |= {
        "WORKER_ID": worker_id,
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(
            endpoints_pb2.ApiServiceDescriptor(
                url=info.control_endpoint.url or arguments.control_endpoint
            )
        ),
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches every process of a terminal; whoever started it ends it
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    run()
