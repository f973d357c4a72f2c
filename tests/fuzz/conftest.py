from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples in every run of `make test`, for a few seconds; others each time, and more of them, in `make fuzz`.
settings.register_profile("bounded", derandomize=True, max_examples=300, deadline=None, database=None, print_blob=True)
settings.register_profile(
    "fuzz",
    derandomize=False,
    max_examples=10_000,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("bounded")
