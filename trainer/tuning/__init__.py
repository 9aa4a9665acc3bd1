"""`multihot-tune`: a search for good values of config keys, by Optuna."""
