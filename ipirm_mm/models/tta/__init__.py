"""Test-time augmentation."""

from .score_merging_tta import VIEW_POLICIES, ScoreMergingTTA

__all__ = ['VIEW_POLICIES', 'ScoreMergingTTA']
