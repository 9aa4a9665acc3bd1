"""A worker process of Beam's local runner, without the notes that Beam's own writes when it starts and ends."""

import logging
import sys

# Such as a warning for every optional cloud library that is not installed. An error reaches the job as an exception, with its
# traceback; here it would be told a second time.
logging.disable(logging.ERROR)

from apache_beam.runners.worker import sdk_worker, sdk_worker_main  # noqa: E402

sdk_worker.print = lambda *_, **__: None  # it prints the same traceback once more

if __name__ == "__main__":
    sdk_worker_main.main(sys.argv)
