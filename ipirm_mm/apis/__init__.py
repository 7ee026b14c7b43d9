"""The whole method by one call each, for folders of images."""

from .distillation import LOSSES, distill
from .folder_config import MODELS
from .prediction import Predictor, find_images, load_predictor, predict, predicted
from .pretraining import METHODS, pretrain

__all__ = [
    'LOSSES',
    'METHODS',
    'MODELS',
    'Predictor',
    'distill',
    'find_images',
    'load_predictor',
    'predict',
    'predicted',
    'pretrain',
]
