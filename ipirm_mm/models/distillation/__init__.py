"""Stage II: teachers, distillation losses and what they compare."""

from .base import DistillationLoss
from .crd import CRD
from .dist import DIST
from .dkd import DKD
from .dry_run import dry_run
from .feature_kl import FeatureKL
from .logit_kl import LogitKL
from .ofd import OFD
from .outputs import NetworkOutputs, StudentRecorder, collect_outputs
from .recorders import PreActivationRecorder, Stage, find_stages
from .teacher import DetachedModules, FrozenTeacher

__all__ = [
    'CRD',
    'DIST',
    'DKD',
    'OFD',
    'DetachedModules',
    'DistillationLoss',
    'FeatureKL',
    'FrozenTeacher',
    'LogitKL',
    'NetworkOutputs',
    'PreActivationRecorder',
    'Stage',
    'StudentRecorder',
    'collect_outputs',
    'dry_run',
    'find_stages',
]
