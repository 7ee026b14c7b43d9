"""Run a tool of this package by its name, from any folder.

    python -m ipirm_mm TOOL [ARGUMENTS]      e.g. python -m ipirm_mm train CONFIG
    python -m ipirm_mm                       lists the tools

Under a launcher: python -m torch.distributed.run --nproc-per-node 2 -m ipirm_mm train CONFIG
--launcher pytorch.
"""

from __future__ import annotations

import ast
import difflib
import runpy
import sys
from pathlib import Path

from .compat import check_packages
from .resources import resource_root


def find_tools() -> dict[str, Path]:
    """All tools, the file of each by its name."""
    folder = resource_root() / 'tools'
    return {path.stem: path for path in sorted(folder.rglob('*.py'), key=lambda path: path.stem)}


def list_tools(tools: dict[str, Path]) -> str:
    """The tools, one line each: the name, and the first line of its documentation."""
    width = max(map(len, tools), default=0)
    lines = ['usage: python -m ipirm_mm TOOL [ARGUMENTS]', '']
    for name, path in tools.items():
        documentation = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
        lines.append(f'{name:{width}}  {documentation.partition(chr(10))[0]}'.rstrip())
    return '\n'.join(lines)


def main() -> None:
    """Run the tool that the command line names, or list the tools."""
    tools = find_tools()
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print(list_tools(tools))
        return
    name = sys.argv[1].removesuffix('.py')
    if name not in tools:
        near = difflib.get_close_matches(name, tools, n=1)
        hint = f'did you mean {near[0]}? ' if near else ''
        sys.exit(f'error: there is no tool {name}: {hint}`python -m ipirm_mm` lists all tools')
    try:
        check_packages()
    except ImportError as error:
        sys.exit(f'error: {error}')
    sys.argv = [str(tools[name]), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
