"""How static files are stored by ``collectstatic``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile, File
from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc] # whitenoise ships no types
    """Hashed names and gzip copies, and no file that loads anything from another host."""

    REDOC_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
    """ReDoc's bundle shows this picture beside its name; no setting turns it off."""

    BLANK = b"data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="

    def _save(self, name: str, content: File[Any]) -> str:
        if name.endswith("redoc.standalone.js"):
            source = content.read()
            if self.REDOC_LOGO not in source:
                raise ImproperlyConfigured(
                    "ReDoc's bundle no longer names the address of its logo: find it and change config/storage.py."
                )
            content = ContentFile(source.replace(self.REDOC_LOGO, self.BLANK))
        return super()._save(name, content)  # type: ignore[no-any-return]

    def post_process(self, paths: dict[str, Any], dry_run: bool = False, **options: Any) -> Iterator[Any]:
        """Hash and compress; of ReDoc's bundle what ``_save`` has stored, where Django would take the original."""
        stored = {name: (self, name) if name.endswith("redoc.standalone.js") else paths[name] for name in paths}
        yield from super().post_process(stored, dry_run=dry_run, **options)
