# Control: the student at a laptop's scale from the encoder of ipirm_simclr_sum.py, without a
# teacher.
_base_ = ['student_scratch.py']

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ipirm_simclr_sum/epoch_20.pth',
            prefix='backbone.',
        )
    )
)
