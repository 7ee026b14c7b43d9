# Stage II at a laptop's scale, Table 4's row "CRD with KL loss".
_base_ = ['student_crd.py']

model = dict(
    distill_losses=[
        *_base_.model.distill_losses,
        dict(type='LogitKL', temperature=4.0, loss_weight=4.0),
    ]
)
