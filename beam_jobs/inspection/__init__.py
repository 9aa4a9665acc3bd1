"""Looking at what is there: a dataset, or files that are to become one."""
