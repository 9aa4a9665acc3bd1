"""Fitting of linear models: documents -> features -> a classifier a label -> calibrated weights."""
