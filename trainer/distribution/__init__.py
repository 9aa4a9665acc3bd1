"""Devices, replicas, workers and their addresses."""
