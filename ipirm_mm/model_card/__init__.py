"""Model cards of published classifiers."""

from .card import Card, check_license
from .controls import controls_of
from .results import read_results
from .training import Training, stage_one_settings

__all__ = [
    'Card',
    'Training',
    'check_license',
    'controls_of',
    'read_results',
    'stage_one_settings',
]
