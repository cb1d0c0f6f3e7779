"""What this stack costs a request, measured beside others: ``./scripts/bench``."""
