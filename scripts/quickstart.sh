#!/usr/bin/env bash
# From nothing to a served model: makes a virtual environment, then preprocesses, trains,
# evaluates, exports and predicts.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment .venv .

config=configs/docstrings.yaml
started=$SECONDS
say "1/5 preprocess: docstrings of the installed packages -> sharded TFRecords"
multihot-preprocess --config "$config" --overwrite
say "2/5 train"
multihot-train --config "$config"
say "3/5 evaluate"
multihot-evaluate --config "$config"
say "4/5 export"
multihot-export --config "$config"
say "5/5 predict: labels that the exported model gives to raw strings"
multihot-predict --model out/docstrings/model \
  "Compute the singular value decomposition of a matrix." \
  "Returns a PCollection with the elements that pass the filter." \
  "Raised when a connection is closed by the server before the response was read."
say "done in $((SECONDS - started)) s; try your own:" \
  "$VIRTUAL_ENV/bin/multihot-predict --model out/docstrings/model \"some text\""
