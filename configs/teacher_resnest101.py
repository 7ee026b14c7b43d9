# Report, Section 3.2: the teacher of Table 1's ResNeSt-101,
# fine-tuned from Stage I with labels.
_base_ = [
    '_base_/models/classifier_resnest101.py',
    '_base_/datasets/vipriors_distill_330.py',
    '_base_/schedules/distill_100e.py',
    '_base_/default_runtime.py',
]
