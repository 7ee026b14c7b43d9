"""What models of several kinds share."""

from .classifier_config import load_classifier, plain_classifier

__all__ = ['load_classifier', 'plain_classifier']
