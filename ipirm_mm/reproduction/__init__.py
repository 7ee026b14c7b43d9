"""The report from its data to its submission: the commands of each table, and a rehearsal."""

from .chain import Chain, Step
from .cost import CARD_TFLOPS, training_hours
from .rehearsal import RehearsalConfigs
from .results import Row, table_of
from .targets import CARDS, TARGETS, add_target, check_target, read_models

__all__ = [
    'CARDS',
    'CARD_TFLOPS',
    'TARGETS',
    'Chain',
    'Row',
    'Step',
    'add_target',
    'check_target',
    'read_models',
    'table_of',
    'training_hours',
    'RehearsalConfigs',
]
