# Control: the linear probe of ours/simsiam_r50_ours_random_partition.py.
_base_ = ['linear_r50.py']

model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/simsiam_r50_ours_random_partition/epoch_800.pth')
    )
)
