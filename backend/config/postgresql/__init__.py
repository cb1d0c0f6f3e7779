"""Django's PostgreSQL, for a password that is being changed (docs/decisions/0034)."""
