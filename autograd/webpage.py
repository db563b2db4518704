"""What a page needs that is one file of HTML: it fetches nothing, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any


def fill(frame: str, **parts: str) -> str:
    """The frame with a part for each {{name}}; what stands in a part is left as it is."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], frame)


def as_data(value: Any) -> str:
    """JSON that can stand in a script element, which a < might end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def policy(style: str, *scripts: str) -> str:
    """A Content-Security-Policy: only this style and these scripts, and nothing from anywhere else."""
    hashes = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
