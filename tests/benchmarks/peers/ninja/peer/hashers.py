"""How passwords are hashed: as this stack does."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class Hasher(Argon2PasswordHasher):
    """Argon2id with the least parameters that OWASP accepts."""

    time_cost = 2
    memory_cost = 19 * 1024
    parallelism = 1
