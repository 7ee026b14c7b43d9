"""The Markdown files of the repository, and the commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    {
        *ROOT.glob('*.md'),
        *ROOT.glob('docs/*.md'),
        *ROOT.glob('benchmarks/*.md'),
        *ROOT.glob('configs/**/*.md'),
        *ROOT.glob('projects/**/*.md'),
        *ROOT.glob('ipirm_mm/**/*.md'),
    }
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# Left columns of these tables say where things were.
HISTORY = {'CHANGELOG.md'}
FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding='utf-8')


def blocks(text: str) -> list[str]:
    """Blocks of code, indented or between fences without a language other than a shell's."""
    found = [body for language, body in FENCE.findall(text) if language in ('', 'bash', 'shell')]
    indented = re.findall(r'(?:^(?: {4}.*)?\n)+', FENCE.sub('', text), re.M)
    return [*found, *(re.sub(r'^ {4}', '', block, flags=re.M) for block in indented)]


def command_lines(name: str) -> list[list[str]]:
    """Words of each line of a page's blocks of code, without variables set for a command."""
    found = []
    for block in blocks(read(name)):
        for line in block.replace('\\\n', ' ').splitlines():
            try:
                words = shlex.split(line, comments=True)
            except ValueError:
                continue
            while words and re.match(r'\w+=', words[0]):
                words.pop(0)
            if words:
                found.append(words)
    return found
