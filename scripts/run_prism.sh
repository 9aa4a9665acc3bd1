#!/usr/bin/env bash
# Runs a job on Prism, Beam's own runner in Go:
#   scripts/run_prism.sh [--module beam_jobs.preprocess] [--prism FILE]
#     --config configs/x.yaml [...] [-- BEAM OPTIONS]
#
# Builds Prism the first time, with Go, unless --prism names the program; runs the job on it and
# stops it. Its exit status is the job's. Prism starts one worker process, never more.
set -euo pipefail
. "$(dirname "$0")/beam_engine.sh"

read_arguments '--module --prism' "$@"
if [ -z "$program" ]; then
  program=$cache/prism-$beam_version
  if [ ! -f "$program" ]; then
    command -v go >/dev/null ||
      fail "no Go found to build Prism with; install it, or give the program with --prism"
    echo "building Prism $beam_version into $cache (some minutes, once)" >&2
    mkdir -p "$cache"
    folder=$(mktemp -d "$cache/build-XXXXXX")
    GOBIN=$folder go install "github.com/apache/beam/sdks/v2/go/cmd/prism@v$beam_version" ||
      fail "Go cannot get or build Prism $beam_version; give the program with --prism"
    mv "$folder/prism" "$program"
    rmdir "$folder"
  fi
fi
run_job --runner=PrismRunner --prism_location="$program"
