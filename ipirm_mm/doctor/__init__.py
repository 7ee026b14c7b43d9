"""Checks of everything that a run needs, before it: ``tools/check_setup.py``."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.logging import MMLogger

from .building import Setup, build, prepare
from .checkpoints import check_checkpoints
from .data import check_data
from .dry_run import check_training
from .environment import check_machine, check_packages
from .findings import Finding, Findings, counted
from .schedule import check_schedule
from .space import check_space

__all__ = ['Finding', 'Findings', 'examine']


def examine(
    cfg: Any,
    checkpoints: Sequence[str] = (),
    gpus: int = 1,
    sample: int | None = 5000,
    steps: int = 5,
    show: Callable[[str], None] = print,
) -> Findings:
    """Check everything that a run of a config needs; nothing is left in its work folder.

    Args:
        cfg: The config, from :func:`ipirm_mm.cli.load_config`; changed in place.
        checkpoints: Further checkpoints to compare with the model. Defaults to none.
        gpus: Number of processes that it would run with. Defaults to 1.
        sample: Number of images to read of each data set, chosen with a fixed seed; None for all.
            Defaults to 5000.
        steps: Number of training steps to time. Defaults to 5.
        show: Gets a line per finding, and one at the end. Defaults to ``print``.

    Returns:
        The findings.
    """
    began = time.monotonic()
    findings = Findings(show)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter('ignore')
        with findings.check('packages'):
            check_packages(findings)
        with findings.check('machine'):
            check_machine(findings, cfg, gpus)
        prepare(cfg, findings)
        setup = Setup(cfg, gpus, folder)
        build(setup, findings)
        check_schedule(setup, findings)
        # The current log from here on: it shows progress, that of the runner is silent.
        log = MMLogger.get_instance('check_setup', log_level='INFO')
        check_data(setup, findings, sample)
        for handler in log.handlers:
            handler.setLevel('ERROR')
        check_checkpoints(setup, findings, checkpoints)
        check_space(setup, findings)
        check_training(setup, findings, steps)
    show(
        f'{counted(findings.count("error"), "error")}, '
        f'{counted(findings.count("warning"), "warning")}, in {time.monotonic() - began:.0f} s'
    )
    return findings
