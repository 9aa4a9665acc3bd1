# Sourced by run_flink.sh, run_spark.sh, run_prism.sh and run_dataflow.sh: runs a job of beam_jobs
# on another engine than Beam's local runner. Needs a Python in which multihot is installed: that
# of the active environment, or PYTHON=/path/to/python.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/multihot
python=${PYTHON:-python}
module=beam_jobs.preprocess workers=2 program= project= region= temp_location=
job_arguments=() beam_arguments=()

fail() { # what is wrong and how to fix it
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# read_arguments FLAGS "$@": takes those flags of the case below that are in FLAGS; the rest is
# the job's, and what follows `--` Beam's.
read_arguments() {
  local flags=" $1 "
  shift
  while [ $# -gt 0 ]; do
    if [ "$1" = -- ]; then
      beam_arguments=("${@:2}")
      break
    elif [[ $flags == *" $1 "* ]]; then
      [ $# -gt 1 ] || fail "$1: received no value, expected one"
      case $1 in
        --module) module=$2 ;;
        --workers) workers=$2 ;;
        --project) project=$2 ;;
        --region) region=$2 ;;
        --temp_location) temp_location=$2 ;;
        --jar | --prism)
          program=$2
          [ -f "$program" ] || fail "$1: there is no file $program"
          ;;
      esac
      shift 2
    else
      job_arguments+=("$1")
      shift
    fi
  done
  [[ $workers =~ ^[1-9][0-9]*$ ]] ||
    fail "--workers: received '$workers', expected a number from 1"
  find_beam
}

# find_beam: the Python with Beam, in `python`, and Beam's version, in `beam_version`.
find_beam() {
  local how="activate the environment that multihot is installed in, or set PYTHON"
  python=$(command -v "$python") || fail "no Python found; $how"
  local version='import importlib.metadata; print(importlib.metadata.version("apache-beam"))'
  beam_version=$("$python" -c "$version" 2>/dev/null) || fail "$python has no apache-beam; $how"
}

# find_job_server ARTIFACT: Beam's job server for an engine, in `program`; from Maven Central the
# first time.
find_job_server() {
  [ -z "$program" ] || return 0
  local coordinates="org.apache.beam:$1:$beam_version"
  program=$cache/$1-$beam_version.jar
  [ ! -f "$program" ] || return 0
  command -v mvn >/dev/null ||
    fail "no Maven found to get $coordinates with; install it, or give the file with --jar"
  echo "getting $coordinates (some 300 MB) into $cache" >&2
  local folder
  mkdir -p "$cache"
  folder=$(mktemp -d "$cache/download-XXXXXX")
  if mvn --quiet --batch-mode --update-snapshots \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact="$coordinates" -DoutputDirectory="$folder" >"$folder/log" 2>&1; then
    mv "$folder/$1-$beam_version.jar" "$program"
    rm -r "$folder"
  else
    sed -n '/ERROR/{p;q}' "$folder/log" >&2
    rm -r "$folder"
    fail "Maven cannot get $coordinates; get the file elsewhere and give it with --jar"
  fi
}

# run_job BEAM OPTIONS: the job, whose end is this script's. It starts and stops engine and
# workers itself, so signals must reach it.
run_job() {
  export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
  exec "$python" -m "$module" "${job_arguments[@]}" -- "$@" "${beam_arguments[@]}"
}
