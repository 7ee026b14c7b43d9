# Stage I on MoCo v3 at a laptop's scale, our recipe (see ipirm_simclr.py): a warm-up, then one
# partition into 20 subsets by k-means and a penalty of weight 2. The report has no MoCo v3. The
# risk of a subset is MoCo v3's own loss, with negatives of the subset. Projector and predictor are
# those of ipirm_simsiam.py. The temperature is that of SimCLR here.
_base_ = ['ipirm_simsiam.py']

model = dict(
    type='IPIRMMoCoV3',
    # MMPretrain's configs have 0.01, which follows too slowly over so few steps.
    base_momentum=0.05,
    head=dict(
        _delete_=True,
        type='IPIRMMoCoV3Head',
        temperature=0.5,
        irm_weight=2.0,
        irm_warmup_epochs=5,
        predictor=_base_.model.head.predictor,
    ),
)
