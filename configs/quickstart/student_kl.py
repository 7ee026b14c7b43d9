# Stage II at a laptop's scale, Table 4's row "KL loss, Logits": student and teacher start from the
# encoder of ipirm_simclr_sum.py, and the teacher is fine-tuned first:
#   python tools/train.py configs/quickstart/ipirm_simclr_sum.py
#   python tools/train.py configs/quickstart/teacher.py
#   python tools/train.py configs/quickstart/student_kl.py
_base_ = ['student_finetuned.py']

model = dict(
    type='DistillingClassifier',
    teacher=dict(model=_base_.model, checkpoint='work_dirs/teacher/epoch_300.pth'),
    distill_losses=[dict(type='LogitKL', temperature=4.0, loss_weight=4.0)],
)
