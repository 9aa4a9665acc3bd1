"""What an evaluation holds, and the names of the methods that it compares."""

ONE_THRESHOLD = "model, one threshold"

LABEL_THRESHOLDS = "model, a threshold per label"

TOP_K = "model, k best labels"

EXPECTED_F1 = "model, best expected F1"

NO_LABELS = "baseline: no labels"

FREQUENT_LABELS = "baseline: most frequent labels"
