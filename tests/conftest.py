"""Registers everything once, and keeps threads few, so that runs are alike on all machines."""

import torch
from mmpretrain.utils import register_all_modules

import ipirm_mm  # noqa: F401

# What `default_scope` of a config does: names within transforms are looked up in MMPretrain.
register_all_modules(init_default_scope=True)
torch.set_num_threads(min(2, torch.get_num_threads()))
