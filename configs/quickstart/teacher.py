# The teacher at a laptop's scale: the encoder of ipirm_simclr_bn.py, fine-tuned with labels. As a
# student without teacher it is the control of the student_*.py beside it.
_base_ = ['student_scratch.py']

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ipirm_simclr_bn/epoch_20.pth',
            prefix='backbone.',
        )
    )
)
