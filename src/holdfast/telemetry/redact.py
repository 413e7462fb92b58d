"""
Secrets stay out of what is told: the ones that are configured, and whatever looks like a key.

    Redactor(secrets)("... api_key=sk-ant-api03-Qx...")  ─▶  "... api_key=[redacted]"
"""

import json
import re
from collections.abc import Iterable, Mapping

REDACTED = "[redacted]"

SHORTEST = 8
"""Characters of a configured secret that is looked for; a shorter one would take half of every line with it."""

_SECRET_NAME = re.compile(r"(API_?KEY|TOKEN|SECRET|PASSWORD|OTLP_(TRACES_)?HEADERS)$")

_FORMATS = {
    "sk-": r"sk-[A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic and those that do as they do
    "hf_": r"hf_[A-Za-z0-9_]{16,}",  # ours, and Hugging Face's
    "AKIA": r"AKIA[A-Z0-9]{16}",
    "ASIA": r"ASIA[A-Z0-9]{16}",
    "AIza": r"AIza[A-Za-z0-9_-]{30,}",
    "gh": r"gh[opsur]_[A-Za-z0-9]{20,}",
    "github_pat_": r"github_pat_[A-Za-z0-9_]{20,}",
    "glpat-": r"glpat-[A-Za-z0-9_-]{16,}",
    "xox": r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    "eyJ": r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    "earer ": r"(?<=earer )[A-Za-z0-9._~+/=-]{8,}",
    "asic ": r"(?<=asic )[A-Za-z0-9+/=]{8,}",
    "://": r"(?<=://)[^/\s:@\"'\\]*:[^/\s@\"'\\]+(?=@)",
    "-----BEGIN": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s\\-]*",
}
"""What known kinds of secrets look like, by a piece of text that each of them has: most lines have none of these."""

_RARE = ("A", "B", "J", "x", "/", " ", "pat")
"""Pieces of those pieces: to look for one letter that is not there takes a tenth of the time."""


class Redactor:
    """
    Takes secrets out of text.

    Args:
        secrets: Configured ones; those shorter than ``SHORTEST`` are left alone.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= SHORTEST}
        escaped = {json.dumps(secret, ensure_ascii=ascii_)[1:-1] for secret in known for ascii_ in (True, False)}
        self._secrets = tuple(sorted(known | escaped, key=len, reverse=True))
        self._formats: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
        for mark, form in _FORMATS.items():
            rare = next((piece for piece in _RARE if piece in mark), "")
            self._formats.setdefault(rare, []).append((mark, re.compile(form)))

    def __call__(self, text: str) -> str:
        """``text`` with ``[redacted]`` in place of every secret."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
        for rare, formats in self._formats.items():
            if rare in text:
                for mark, form in formats:
                    if mark in text:
                        text = form.sub(REDACTED, text)
        return text


def secrets_in(environ: Mapping[str, str]) -> list[str]:
    """The values of the variables that are called as secrets are."""
    return [value for name, value in environ.items() if _SECRET_NAME.search(name.upper())]
