# The teacher at a laptop's scale: the encoder of ipirm_simclr_sum.py, fine-tuned with labels for
# 300 epochs, three times as long as its students.
_base_ = ['student_finetuned.py']

param_scheduler = [dict(type='CosineAnnealingLR', T_max=300, by_epoch=True)]
train_cfg = dict(max_epochs=300, val_interval=50)
default_hooks = dict(checkpoint=dict(interval=300))
