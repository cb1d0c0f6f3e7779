"""What scripts/doctor --bundle takes out of text, and what it leaves."""

import base64
import json
from urllib.parse import quote

import pytest
from scripts.diagnosis.redaction import GONE, Redactor

SECRET = "s3cret/of+this=stack"
JWT = ".".join(
    ["eyJ" + "hbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJ" + "0b2tlbl90eXBlIjoiYWNjZXNzIn0", "c2lnbmF0dXJlLWNhbmFyeQ"]
)


@pytest.fixture
def redact() -> Redactor:
    return Redactor(
        [f"{SECRET}\n", "smtp+tls://mailer:p%40ss-word@mail.example.com:587"],
        shown=["JWT_SESSION_LIFETIME_DAYS", "DJANGO_PASSWORD_RESET_URL"],
        networks=["172.20.0.0/16"],
        paths=[("/home/carol", "HOME"), ("/home/carol/stack", "CHECKOUT")],
    )


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        json.dumps({"x": SECRET}),
        "p%40ss-word",
        "p@ss-word",
    ],
)
def test_a_known_secret_is_taken_out_in_every_form(redact: Redactor, form: str) -> None:
    after = redact(f"before {form} after")

    assert GONE in after
    assert form not in after
    assert after.startswith("before ")
    assert after.endswith(" after")


LEAKS = {
    "a token": (f"token was {JWT} here", JWT.split(".")[2]),
    "a token that was cut off": (f"token was {JWT[:40]}", JWT[3:40]),
    "an authorization header": ("Authorization: Token canary0123", "canary0123"),
    "an authorization header in JSON": ('{"authorization": "Basic Y2FuYXJ5", "status": 1}', "Y2FuYXJ5"),
    "a cookie": ("Cookie: sessionid=canary; csrftoken=canary2", "canary"),
    "a cookie that is set": ("< set-cookie: sessionid=canary; HttpOnly", "canary"),
    "a bearer token": ("sent Bearer canary-0123456789", "canary"),
    "a password in an address": ("postgres://canary:canary2@db:5432/x?sslmode=on", "canary"),
    "a password with a slash in an address": ("postgres://u:cana/ry@db:5432/x", "ry@"),
    "a query": ('"GET /auth/x/?token=canary&a=b HTTP/1.1"', "canary"),
    "a password in JSON": ('{"username": "x", "password": "canary with \\" spaces"}', "canary"),
    "an escaped password in JSON": (r"{\"password\": \"canary\"}", "canary"),
    "a password in YAML": ("  SOME_PASSWORD: canary", "canary"),
    "a password in a variable": ("export PGPASSWORD='canary x'", "canary"),
    "an API key": ("x-api-key=canary", "canary"),
    "a session": ("login: account 7, session 3f0e1c52-1111-4222-8333-abcdefabcdef", "3f0e1c52"),
    "a link of a password reset": ("/reset-password/MQ/c7k2ab-0123456789abcdef0123456789abcdef", "c7k2ab"),
    "a random value that is in no file": ("found aB3dEfGh1jKlMn0pQrStUvWxYz012345 there", "aB3dEfGh"),
    "a private key": ("-----BEGIN EC " + "PRIVATE KEY-----\nMHcCcanary\n", "canary"),
    "a value of a row": ("DETAIL:  Key (username)=(canary) already exists.", "canary"),
    "a row": ("DETAIL:  Failing row contains (1, canary, null).", "canary"),
    "a statement": ("STATEMENT:  SELECT 'canary'", "canary"),
    "what a client wrote": ('ERROR:  invalid input syntax for type integer: "canary"', "canary"),
    "a mail address": ("sent to canary.person+tag@mail.example.org now", "canary"),
    "a client's address": ('"remote_addr":"203.0.113.77"', "203.0.113.77"),
    "a client's IPv6 address": ('"remote_addr":"2001:db8:1::77"', "2001:db8"),
    "a folder of a person": ("/home/carol/notes", "carol"),
}


@pytest.mark.parametrize("what", LEAKS)
def test_what_has_the_shape_of_a_secret_is_taken_out(redact: Redactor, what: str) -> None:
    line, leak = LEAKS[what]
    assert leak in line

    assert leak not in redact(line)


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-23T14:02:03.123456789Z 172.20.0.4:8000 answered in 0.012",
        "listening on 127.0.0.1 and [::1] and 0.0.0.0",
        "JWT_SESSION_LIFETIME_DAYS=30",
        '"POSTGRES_PASSWORD_FILE": "/run/secrets/postgres_app_password"',
        "secrets:\n  - source: django_secret_key",
        "image sha256:cdd367beb437111b1feba8f4befecaac48c2a70f77450b35d5f100ee633efd16",
        '"request_id":"0123456789abcdef0123456789abcdef","status":200',
        "DJANGO_ALLOWED_HOSTS: localhost,127.0.0.1,[::1]",
        "nginx version: nginx/1.30.6",
        "password changed: account 5, 3 sessions ended",
    ],
)
def test_what_helps_stays(redact: Redactor, line: str) -> None:
    assert redact(line) == line


def test_the_same_address_is_the_same_word_and_another_is_another(redact: Redactor) -> None:
    first, second, again = redact("203.0.113.1 203.0.113.2"), redact("203.0.113.2"), redact("203.0.113.1")

    assert first == "[address-1] [address-2]"
    assert (again, second) == ("[address-1]", "[address-2]")


def test_the_longer_folder_counts(redact: Redactor) -> None:
    assert redact("/home/carol/stack/.env") == "CHECKOUT/.env"


def test_a_value_that_is_still_there_is_noticed(redact: Redactor) -> None:
    assert redact.leaks(f"x{SECRET}")
    assert not redact.leaks(redact(f"x{SECRET}"))
