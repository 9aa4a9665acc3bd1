#!/usr/bin/env bash
# Checks the Beam jobs on all engines, with given job servers of Flink and Spark:
#   scripts/check_engines.sh --flink-jar FILE --spark-jar FILE [--prism FILE]
#     [what scripts/check_engines.py takes, such as --flink-master HOST:8081 --predict --kills 20]
#
# Prints a table of engine x place x stage and which engines were not run, then runs the tests of
# engines, which fail where an engine that was given cannot be used. Its exit status is 0 if all is
# well.
set -euo pipefail
. "$(dirname "$0")/beam_engine.sh"

given=$(mktemp -d) required=()
trap 'rm -r "$given"' EXIT
mkdir "$given/multihot"
version='import importlib.metadata; print(importlib.metadata.version("apache-beam"))'
beam_version=$("$python" -c "$version")
rest=()
# take FLAG NAME ENGINE FILE: puts a program where the scripts of engines look for it.
take() {
  [ -f "$4" ] || fail "$1: there is no file $4"
  ln -s "$(realpath "$4")" "$given/multihot/$2"
  required+=("$3")
}
while [ $# -gt 0 ]; do
  case $1 in
    --flink-jar | --spark-jar | --prism)
      [ $# -gt 1 ] || fail "$1: received no value, expected a file"
      case $1 in
        --flink-jar) take "$1" "beam-runners-flink-1.19-job-server-$beam_version.jar" flink "$2" ;;
        --spark-jar) take "$1" "beam-runners-spark-3-job-server-$beam_version.jar" spark "$2" ;;
        --prism) take "$1" "prism-$beam_version" prism "$2" ;;
      esac
      shift 2
      ;;
    *)
      rest+=("$1")
      shift
      ;;
  esac
done
# What has been fetched or built before is used, too.
for program in "$cache"/*-"$beam_version"*; do
  [ ! -f "$program" ] || [ -e "$given/multihot/${program##*/}" ] ||
    ln -s "$program" "$given/multihot/${program##*/}"
done
export XDG_CACHE_HOME=$given PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
status=0
"$python" "$root/scripts/check_engines.py" "${rest[@]}" || status=$?
MULTIHOT_REQUIRE=$(IFS=,; echo "${required[*]}") \
  "$python" -m pytest -q -rs "$root/tests/system/test_portable_runners.py" \
  "$root/tests/system/test_run_dataflow.py" "$root/tests/integration/test_dataflow.py" \
  "$root/tests/integration/test_job_service.py" "$root/tests/integration/test_worker_pool.py" || status=$?
exit $status
