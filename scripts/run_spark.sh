#!/usr/bin/env bash
# Runs a job on Apache Spark:
#   scripts/run_spark.sh [--module beam_jobs.preprocess] [--workers 2] [--jar FILE]
#     --config configs/x.yaml [...] [-- BEAM OPTIONS]
#
# Starts Beam's job server with Spark in it, runs the job on it with that many worker processes
# and stops both; its exit status is the job's. `-- --spark_master_url=spark://HOST:PORT` submits to
# a cluster that runs already, whose workers must be given too: see docs/clusters.md. Needs Java 11
# or 17. --jar: Beam's job server, if Maven cannot get it.
set -euo pipefail
. "$(dirname "$0")/beam_engine.sh"

read_arguments '--module --workers --jar' "$@"
find_job_server beam-runners-spark-3-job-server
command -v java >/dev/null || fail "no Java found; install version 11 or 17"
run_job --runner=SparkRunner --spark_job_server_jar="$program" \
  --spark_master_url="local[$workers]" --sdk_worker_parallelism="$workers"
