"""Test-time augmentation."""

from ipirm_mm.datasets.transforms import CROPS, tta_pipeline

from .score_merging_tta import VIEW_POLICIES, ScoreMergingTTA

__all__ = ['CROPS', 'VIEW_POLICIES', 'ScoreMergingTTA', 'tta_pipeline']
