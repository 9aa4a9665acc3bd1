"""Settings that every test shares."""

import os

import hypothesis

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tracing a graph makes the first example slow, and shared machines make any example slow.
hypothesis.settings.register_profile(
    "multihot", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("multihot")
