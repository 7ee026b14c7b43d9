# Report, Table 4, row "OFD, Multiple feature layers", with the teacher as Section 3.2 says it to
# the letter: the frozen encoder of Stage I. The report does not say whether the teacher was
# fine-tuned; in ofd_r50.py it is.
_base_ = ['ofd_r50.py']

model = dict(
    teacher=dict(
        _delete_=True,
        model='ipirm_mm::ipirm_simclr_r50.py',
        checkpoint='work_dirs/ipirm_simclr_r50/epoch_800.pth',
    )
)
