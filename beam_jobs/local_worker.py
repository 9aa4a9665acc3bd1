"""A worker process of Beam's local runner, without the notes that Beam's own writes when it starts and ends."""

import logging
import sys

logging.disable(logging.WARNING)  # such as a warning for every optional cloud library that is not installed

from apache_beam.runners.worker import sdk_worker_main  # noqa: E402

if __name__ == "__main__":
    sdk_worker_main.main(sys.argv)
