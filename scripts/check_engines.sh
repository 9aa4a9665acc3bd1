#!/usr/bin/env bash
# Checks the Beam jobs on all engines, with given job servers of Flink and Spark:
#   scripts/check_engines.sh --flink-jar FILE --spark-jar FILE [--prism FILE]
#     [what scripts/check_engines.py takes, such as --flink-master HOST:8081 --predict --kills 20]
#
# Prints a table of engine x place x stage and which engines were not run, then runs the tests of
# engines, which fail where an engine that was given cannot be used. Its exit status is 0 if all is
# well; it is 2, before anything runs, if a file is not what it should be or no Java can run it.
set -euo pipefail
. "$(dirname "$0")/beam_engine.sh"

find_beam
"$python" -c 'import importlib.util, sys
sys.exit(not all(map(importlib.util.find_spec, ("boto3", "moto", "pytest"))))' ||
  fail "$python has no emulator of S3 or no pytest; install multihot with the extra \`test\`"
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
given=$(mktemp -d) required=() rest=()
trap 'rm -r "$given"' EXIT
mkdir "$given/multihot"
# take FLAG NAME ENGINE FILE: puts a program where the scripts of engines look for it, if it is one
# and, where it needs a Java, there is one.
take() {
  [ -f "$4" ] || fail "$1: there is no file $4"
  "$python" -c 'if True:
    from beam_jobs.contract.command_line import run_main
    from beam_jobs.runtime import job_servers

    def check(given):
        flag, _, engine, file = given
        if engine == "Prism":
            job_servers.check_prism(file, what=flag)
        else:
            job_servers.check_jar(engine, file, what=flag)
            job_servers.check_java("java")

    run_main(check)' "$@"
  ln -s "$(realpath "$4")" "$given/multihot/$2"
  required+=("${3,,}")
}
while [ $# -gt 0 ]; do
  case $1 in
    --flink-jar | --spark-jar | --prism)
      [ $# -gt 1 ] || fail "$1: received no value, expected a file"
      case $1 in
        --flink-jar) take "$1" "beam-runners-flink-1.19-job-server-$beam_version.jar" Flink "$2" ;;
        --spark-jar) take "$1" "beam-runners-spark-3-job-server-$beam_version.jar" Spark "$2" ;;
        --prism) take "$1" "prism-$beam_version" Prism "$2" ;;
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
export XDG_CACHE_HOME=$given
status=0
"$python" "$root/scripts/check_engines.py" "${rest[@]}" | tee "$given/table" || status=$?
MULTIHOT_REQUIRE=$(IFS=,; echo "${required[*]}") \
  "$python" -m pytest -q -rs "$root/tests/system/test_portable_runners.py" \
  "$root/tests/system/test_run_dataflow.py" "$root/tests/integration/test_dataflow.py" \
  "$root/tests/integration/test_job_service.py" "$root/tests/integration/test_worker_pool.py" || status=$?
grep '^NOT RUN' "$given/table" || true # once more, below what the tests have printed
exit $status
