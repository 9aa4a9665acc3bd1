#!/usr/bin/env bash
# Runs a job on Apache Flink:
#   scripts/run_flink.sh [--module beam_jobs.preprocess] [--workers 2] [--jar FILE]
#     --config configs/x.yaml [...] [-- BEAM OPTIONS]
#
# Starts Beam's job server with a Flink cluster in it, runs the job on it with that many worker
# processes and stops both; its exit status is the job's. `-- --flink_master=HOST:PORT` submits to
# a cluster that runs already, whose workers must be given too: see docs/clusters.md. Needs Java 11
# or 17. --jar: Beam's job server, if Maven cannot get it.
set -euo pipefail
. "$(dirname "$0")/beam_engine.sh"

flink=1.19
read_arguments '--module --workers --jar' "$@"
find_job_server "beam-runners-flink-$flink-job-server"
command -v java >/dev/null || fail "no Java found; install version 11 or 17"
run_job --runner=FlinkRunner --flink_version="$flink" --flink_job_server_jar="$program" \
  --parallelism="$workers" --sdk_worker_parallelism="$workers"
