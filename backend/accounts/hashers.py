"""How passwords are hashed."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class Argon2idPasswordHasher(Argon2PasswordHasher):
    """Argon2id with the least parameters that OWASP accepts: 19 MiB, two passes, one lane.

    Django's own (100 MiB, eight lanes) take 0.14 s of both cores and let eight logins at once fill a container's
    memory. https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
    """

    time_cost = 2
    memory_cost = 19 * 1024  # KiB
    parallelism = 1
