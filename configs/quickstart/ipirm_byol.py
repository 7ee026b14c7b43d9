# Stage I on BYOL at a laptop's scale, our recipe (see ipirm_simclr.py): a warm-up, then one
# partition into 20 subsets by k-means and a penalty of weight 2. The report has no BYOL.
# Projector, predictor and the risk of a subset are those of ipirm_simsiam.py.
_base_ = ['ipirm_simsiam.py']

# MMPretrain's configs have a momentum of 0.01, which follows too slowly over so few steps.
model = dict(type='IPIRMBYOL', base_momentum=0.05)
