"""Notes on latents, kept beside the course and never overwritten."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from utils.paths import atomic_write
from utils.reading.features import FeatureError


class Notes:
    """A learner's notes on the latents of one SAE: a JSON file that is written whole after every change.

    Two notebooks may write the same file: each change touches one latent's note and keeps the others as they are on disk.
    A file that cannot be read is set aside under another name, never overwritten.
    """

    def __init__(self, path: Path, sae_sha256: str) -> None:
        """Raises: FeatureError when the file holds notes on another SAE."""
        self.path, self.sae_sha256, self.said = Path(path), sae_sha256, ""
        self._unsaved: dict[str, str] = {}
        self._notes = self._read()

    def __getitem__(self, latent: int) -> str:
        return self._notes.get(str(latent), "")

    def __iter__(self) -> Iterator[int]:
        """The latents with a note."""
        return (int(latent) for latent, text in self._notes.items() if text.strip())

    def __setitem__(self, latent: int, text: str) -> None:
        """Keep a note, on disk too.

        Raises: OSError, FeatureError when it cannot be written there; it stays in memory, and the next change writes it too.
        """
        # A character that no file can hold (half of a surrogate pair, pasted) is written as its number.
        self._notes[str(latent)] = self._unsaved[str(latent)] = text.encode("utf-8", "backslashreplace").decode("utf-8")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock", timeout=5):
            self._notes = {**self._read(), **self._unsaved}
            ordered = {key: self._notes[key] for key in sorted(self._notes, key=int)}
            atomic_write(self.path, json.dumps({"sae_sha256": self.sae_sha256, "notes": ordered}, ensure_ascii=False, indent=1))
        self._unsaved = {}

    def _read(self) -> dict[str, str]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            owner, notes = stored["sae_sha256"], {str(int(key)): str(text) for key, text in stored["notes"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
            self.path.replace(aside)
            self.said = f"The file of notes could not be read. It is kept as {aside.name}, and a new one begins."
            return {}
        if owner != self.sae_sha256:
            raise FeatureError(f"{self.path.name} holds notes on the latents of another SAE: name another file with notes=, these are left as they are.")
        return notes
