# Report, Table 4, row "OFD, Last feature layer only": 59.31 on the test split. The
# report does not give the resolution, but a range from 300 to 448.
_base_ = ['ofd_r50.py']

model = dict(distill_losses=[dict(type='OFD', stages='last', norm_cfg=dict(type='SyncBN'))])
