#!/usr/bin/env bash
# Runs a job on Google Cloud Dataflow:
#   scripts/run_dataflow.sh --project P --region R --temp_location gs://BUCKET/tmp
#     [--module beam_jobs.preprocess] --config configs/x.yaml [...] [-- BEAM OPTIONS]
#
# The workers install this checkout from a source distribution that Beam makes with setup.py, or
# are containers of an image with `-- --sdk_container_image=...`, which start faster: TensorFlow is
# large. Inputs, outputs and models must be on a store, such as gs://BUCKET. Needs `pip install
# 'multihot[gcp]'` and credentials, such as of `gcloud auth application-default login`.
set -euo pipefail
. "$(dirname "$0")/beam_engine.sh"

read_arguments '--module --project --region --temp_location' "$@"
[ -n "$project" ] || fail "--project: received none, expected the name of a Google Cloud project"
[ -n "$region" ] || fail "--region: received none, expected a region, such as europe-west1"
[[ $temp_location == gs://?* ]] ||
  fail "--temp_location: received '$temp_location', expected a folder such as gs://my-bucket/tmp"
"$python" -c 'import apache_beam.io.gcp.gcsio' 2>/dev/null ||
  fail "$python has no Google Cloud libraries; pip install 'multihot[gcp]'"
run_job --runner=DataflowRunner --project="$project" --region="$region" \
  --temp_location="$temp_location"
