"""The report page and its plots."""
