"""Puts configs, tools and the model index into the wheel; everything else is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CARRIED = ('configs', 'tools', 'model-index.yml')


class BuildWithConfigs(build_py):
    """Copies them to ``ipirm_mm/.mim``, where OpenMMLab's packages have theirs.

    Only into what is built: an editable installation uses the folders of the checkout.
    """

    def run(self):
        """Builds the package, then copies."""
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib) / 'ipirm_mm' / '.mim'
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        target.mkdir(parents=True)
        for name in CARRIED:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
                shutil.copytree(ROOT / name, target / name, ignore=ignored)
            else:
                shutil.copy2(ROOT / name, target / name)


setup(cmdclass=dict(build_py=BuildWithConfigs))
