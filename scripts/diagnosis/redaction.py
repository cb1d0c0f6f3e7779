"""What nobody who helps needs to know, taken out of text: secrets, tokens, and what belongs to the people served.

Known values go first, in every form in which they may have been written; then everything that has the shape of a
secret, because an old value, a client's token or somebody else's password is in no file here.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote, quote_plus, unquote

GONE = "[redacted]"
SHORTEST = 4
"""Shorter values would take out half of every text; no variable of this stack accepts a secret that short."""

NAMES_OF_SECRETS = (
    r"password|passwd|passphrase|pwd|secret|token|api[_-]?key|signing[_-]?key|secret[_-]?key|private[_-]?key|credential"
    r"|session[_-]?(?:id|key)|sessionid|csrf[a-z]*|signature|otp|idempotency[_-]?key"
)
SECRET_NAME = re.compile(NAMES_OF_SECRETS, re.IGNORECASE)

# A value: quoted, or up to what ends one in a log line, a URL, YAML or JSON.
_VALUE = r"(\\\"(?:(?!\\\").)*\\\"|\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;&\"'<>{}]+)"

_PATTERNS: list[tuple[str, str]] = [
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", GONE),
    # scheme://user:password@host; the user may be a person as well.
    (r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@\"'<>]*(?:/[^\s@\"'<>]*)?@", rf"\1{GONE}@"),
    # JSON Web Tokens, whole or cut off.
    (r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*", GONE),
    (
        r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie2?|x-api-key|x-csrf-?token)"
        r"(\\?[\"']?[ \t]*[:=][ \t]*)[^\r\n]*?(?=\\?[\"']\s*[,}\])]|\\?\"|$)",
        rf"\1\2{GONE}",
    ),
    (r"(?i)\b(bearer|basic|digest)(\s+)[A-Za-z0-9._~+/=-]{6,}", rf"\1\2{GONE}"),
    # Whatever was asked for in the query of an address.
    (r"\?[^\s\"'<>|]*=[^\s\"'<>|]*", f"?{GONE}"),
    # One-time links of Django: for a new password, for a registration.
    (r"\b[A-Za-z0-9]{1,16}/[a-z0-9]{5,8}-[0-9a-f]{32}\b", GONE),
    (r"\b[a-z0-9]{5,8}-[0-9a-f]{32}\b", GONE),
    # What PostgreSQL says about rows.
    (
        r"(\bKey \([^)\n]*\)=\().*"
        r"(\)(?: already exists| is not present| is still referenced| conflicts).*)$",
        rf"\1{GONE}\2",
    ),
    (r"(?im)((?:Failing row contains|STATEMENT:|parameters:|bind parameters?)\s).*$", rf"\1{GONE}"),
    (r"(?im)(invalid input (?:syntax|value) for [^:\n]*: ).*$", rf"\1{GONE}"),
]  # fmt: skip

_KEYED = re.compile(rf"(?i)([\w.-]*(?:{NAMES_OF_SECRETS})[\w.-]*)(\\?[\"']?[ \t]*[:=][ \t]*){_VALUE}")
_MAIL = re.compile(r"[A-Za-z0-9._%+'-]+(?:@|%40)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])")
# Nothing but chance writes small and capital letters and digits in a row of this length.
_WORD = "[A-Za-z0-9_-]"
_RANDOM = re.compile(rf"(?<!{_WORD})(?={_WORD}*[a-z])(?={_WORD}*[A-Z])(?={_WORD}*[0-9]){_WORD}{{28,}}={{0,2}}")


def forms(value: str) -> set[str]:
    """Return a value in every form in which a log or a configuration may hold it."""
    plain = {value, unquote(value), value.replace("$", "$$")}
    written = set()
    for item in plain:
        written |= {item, quote(item, safe=""), quote(item), quote_plus(item), json.dumps(item)[1:-1], repr(item)[1:-1]}
    encoded = {base64.b64encode(item.encode()).decode().rstrip("=") for item in plain}
    encoded |= {base64.urlsafe_b64encode(item.encode()).decode().rstrip("=") for item in plain}
    return {form for form in written | encoded if len(form) >= SHORTEST}


def values_of_secret(text: str) -> set[str]:
    """Return what is secret in the text of a secret: the whole, each line, and the account in an address."""
    found = {text.strip(), *(line.strip() for line in text.splitlines())}
    for line in list(found):
        match = re.match(r"[a-z][a-z0-9+.-]*://(.*)@[^@]*$", line, re.IGNORECASE | re.DOTALL)
        if match:
            user, _colon, password = match[1].partition(":")
            found |= {user, password, unquote(user), unquote(password)}
    return {value for value in found if len(value) >= SHORTEST}


class Redactor:
    """Takes out of any text what must not leave this host; the same address or account is the same word throughout."""

    def __init__(
        self,
        secrets: Iterable[str],
        *,
        shown: Iterable[str] = (),
        networks: Iterable[str] = (),
        paths: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Know the values of ``secrets``.

        ``shown`` are names of variables whose values may be seen although they sound like a secret's, ``networks``
        those of the stack, whose addresses are nobody's, and ``paths`` what is written for the folders of this host.
        """
        known = {form for secret in secrets for value in values_of_secret(secret) for form in forms(value)}
        self.known = sorted(known, key=len, reverse=True)
        self.shown = set(shown)
        self.networks = [ipaddress.ip_network(network) for network in networks]
        self.paths = sorted(paths, key=lambda pair: len(pair[0]), reverse=True)
        self.pseudonyms: dict[tuple[str, str], str] = {}

    def __call__(self, text: str) -> str:
        """Return ``text`` without it."""
        for value in self.known:
            text = text.replace(value, GONE)
        for pattern, replacement in _PATTERNS:
            text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
        text = _KEYED.sub(self._keyed, text)
        text = _MAIL.sub(self._named("mail"), text)
        text = _UUID.sub(self._named("id"), text)
        text = _IPV4.sub(self._address, text)
        text = _IPV6.sub(self._address, text)
        text = _RANDOM.sub(GONE, text)
        for path, word in self.paths:
            if path != "/":
                text = re.sub(rf"{re.escape(path)}(?![\w-])", word, text)
        return text

    def leaks(self, text: str) -> bool:
        """Whether a known value is still there."""
        return any(value in text for value in self.known)

    def _keyed(self, match: re.Match[str]) -> str:
        name, sign, value = match[1], match[2], match[3]
        # A file in which a secret is, is none; nor is what the registry says is none.
        if name in self.shown or value.strip("\"'").startswith(("/run/secrets", "secrets/")) or GONE in value:
            return match[0]
        quotes = value[0] if value[0] in "\"'" else ""
        return f"{name}{sign}{quotes}{GONE}{quotes}"

    def _named(self, kind: str) -> Callable[[re.Match[str]], str]:
        def name(match: re.Match[str]) -> str:
            return self._pseudonym(kind, match[0].lower())

        return name

    def _address(self, match: re.Match[str]) -> str:
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            return match[0]  # a time, a version
        if address.is_loopback or address.is_unspecified or any(address in network for network in self.networks):
            return match[0]
        return self._pseudonym("address", str(address))

    def _pseudonym(self, kind: str, value: str) -> str:
        number = sum(known == kind for known, _value in self.pseudonyms) + 1
        return self.pseudonyms.setdefault((kind, value), f"[{kind}-{number}]")
