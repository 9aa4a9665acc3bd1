#!/usr/bin/env bash
# Runs a job on Apache Flink:
#   scripts/run_flink.sh [--module beam_jobs.preprocess] [--workers 2] [--jar FILE]
#     --config configs/x.yaml [...] [-- BEAM OPTIONS]
#
# Starts Beam's job server with a Flink cluster in it, runs the job on it with that many worker
# processes and stops both; its exit status is the job's. `-- --flink_master=HOST:PORT` submits to
# a cluster that runs already: inputs, outputs and this machine's ports must then be within its
# workers' reach. Needs Java 11 or 17. --jar: Beam's job server, if Maven cannot get it.
set -euo pipefail
. "$(dirname "$0")/beam_engine.sh"

flink=1.19
read_arguments '--module --workers --jar' "$@"
find_job_server "beam-runners-flink-$flink-job-server"
command -v java >/dev/null || fail "no Java found; install version 11 or 17"
# What Flink itself opens on Java 17.
opens=()
for package in java.lang java.lang.reflect java.net java.io java.nio sun.nio.ch java.text \
  java.time java.util java.util.concurrent java.util.concurrent.atomic \
  java.util.concurrent.locks; do
  opens+=("--job_server_jvm_properties=--add-opens=java.base/$package=ALL-UNNAMED")
done
# Without retries, the first worker that dies fails the job. A retried bundle writes the same
# bytes.
run_job "${local_workers[@]}" --runner=FlinkRunner --flink_version="$flink" \
  --flink_job_server_jar="$program" "${opens[@]}" \
  --parallelism="$workers" --sdk_worker_parallelism="$workers" \
  --number_of_execution_retries=3 --execution_retry_delay=1000
