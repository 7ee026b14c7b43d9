# Report, Section 3.2: the teacher of Table 4, ResNet-50 fine-tuned from Stage I with labels. The
# report leaves open whether the teacher was fine-tuned; for the other reading give the students
# teacher=dict(model='configs/ipirm_simclr_r50.py', checkpoint=...), which goes with all losses but
# LogitKL.
_base_ = [
    '_base_/models/classifier_r50.py',
    '_base_/datasets/vipriors_distill.py',
    '_base_/schedules/distill_100e.py',
    '_base_/default_runtime.py',
]
