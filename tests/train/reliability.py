"""results/reliability.md, of which each command writes its own section."""

import importlib.metadata
import os
import platform
import re
import time
from pathlib import Path

import jax


def machine() -> str:
    """Date, versions and machine, in words."""
    orbax = importlib.metadata.version("orbax-checkpoint")
    return (
        f"{time.strftime('%Y-%m-%d')}; jax {jax.__version__}, orbax-checkpoint {orbax}, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    )


def write_section(path: Path, title: str, text: str) -> None:
    """Puts a section in the place of the one with its title, or behind the others; those stay as they are."""
    before = path.read_text(encoding="utf-8") if path.exists() else "# Reliability\n"
    parts = re.split(r"(?m)^(?=## )", before)
    section = f"## {title}\n\n{text.strip()}\n"
    places = [number for number, part in enumerate(parts) if part.startswith(f"## {title}\n")]
    if places:
        parts[places[0]] = section
    else:
        parts.append(section)
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
