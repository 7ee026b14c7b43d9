# Control: the student at a laptop's scale from the encoder of ipirm_simclr_bn.py, without teacher.
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
