"""Documents -> dataset: read, analyze, merge, count labels, split, count tokens, write."""
